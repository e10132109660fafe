# SPDX-License-Identifier: Apache-2.0
"""The evaluation that the YAML names, and how its result reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppcls_ise.clustering.processes import ONE_PROCESS, Processes
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.metrics.rank import PROTOCOLS, RankResult, evaluate_rank
from ppcls_ise.metrics.re_ranking import re_ranking
from ppcls_ise.utils.components import register

_SHOWN = 5

# Features [N, D], identities [N] or None, cameras [N] or None.
Side = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
# Identities and cameras alone.
Labels = tuple[np.ndarray | None, np.ndarray | None]


@dataclass(frozen=True)
class ReIDResult:
    """A `RankResult` with what is needed to print it.

    Attributes:
        ranks: the numbers.
        num_gallery: images in the gallery.
        topk: ranks to show.
        protocol: see `ReIDMetric`.
    """

    ranks: RankResult
    num_gallery: int
    topk: tuple[int, ...]
    protocol: str

    @property
    def mAP(self) -> float:  # noqa: N802 - the field's own spelling
        return self.ranks.mAP

    @property
    def rank1(self) -> float:
        return float(self.ranks.cmc[0])

    @property
    def _columns(self) -> list[tuple[str, str]]:
        ranks = self.ranks
        return [
            ("mAP", f"{ranks.mAP:.4f}"),
            ("mINP", f"{ranks.mINP:.4f}"),
            *((f"Rank-{k}", f"{ranks.cmc[k - 1]:.4f}") for k in self.topk),
            ("queries", str(ranks.num_queries)),
            ("gallery", str(self.num_gallery)),
            ("skipped", str(ranks.num_queries - ranks.num_valid_queries)),
        ]

    def __str__(self) -> str:
        return ", ".join(f"{title} {value}" for title, value in self._columns)

    def table(self) -> str:
        """The result as a table of one row."""
        widths = [max(len(title), len(value)) for title, value in self._columns]
        lines = [
            " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in zip(*self._columns, strict=True)
        ]
        return f"{lines[0]}\n{'-+-'.join('-' * width for width in widths)}\n{lines[1]}"

    def describe_skipped(self, query_images: Sequence[str]) -> str:
        """Which queries were left out, and by which rule; empty if none was."""
        skipped = self.ranks.skipped_queries
        if not len(skipped):
            return ""
        names = ", ".join(shown(query_images[i]) for i in skipped[:_SHOWN])
        rule = (
            "the gallery has no image of the same identity from another camera "
            "(Metric.Eval.0.ReIDMetric.protocol=all would also count images of the same camera)"
            if self.protocol == "cross_camera"
            else "the gallery has no image of the same identity"
        )
        more = ", …" if len(skipped) > _SHOWN else ""
        return f"{len(skipped)} of {self.ranks.num_queries} queries skipped: {rule}: {names}{more}"

    def require_valid_queries(self) -> None:
        """Raise if the numbers mean nothing because every query was skipped.

        Raises:
            DataError: no query has a match in the gallery.
        """
        if not self.ranks.num_valid_queries:
            raise DataError(
                "no query has a match in the gallery, so mAP and CMC are undefined (nan): with "
                f"protocol {self.protocol}, a match is an image of the same identity"
                + (" from another camera" if self.protocol == "cross_camera" else "")
                + ". Check the query and gallery folders, or set "
                "Metric.Eval.0.ReIDMetric.protocol=all."
            )


@register("metric")
class ReIDMetric:
    """CMC, mAP and mINP by the Market-1501 protocol, for ``Metric.Eval`` in the YAML.

    Args:
        topk: ranks to show.
        protocol: ``cross_camera`` removes gallery images of the query's identity AND camera (the
            Market-1501 rule); ``all`` removes nothing, for data without cameras.
        re_ranking: rank by k-reciprocal re-ranking instead of the plain distance.
        k1, k2, lambda_value: parameters of the re-ranking.
    """

    def __init__(
        self,
        topk: Sequence[int] = (1, 5, 10),
        protocol: str = "cross_camera",
        re_ranking: bool = False,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
    ) -> None:
        if protocol not in PROTOCOLS:
            raise ConfigError(
                f"Metric.Eval.0.ReIDMetric.protocol has to be one of {PROTOCOLS}, got {protocol!r}"
            )
        if not topk or any(not isinstance(k, int) or k < 1 for k in topk):
            raise ConfigError(
                f"Metric.Eval.0.ReIDMetric.topk has to be a list of ranks >= 1, got {topk!r}"
            )
        if k1 < 1 or k2 < 1 or not 0.0 <= lambda_value <= 1.0:
            raise ConfigError(
                "Metric.Eval.0.ReIDMetric: k1 and k2 have to be at least 1 and lambda_value in "
                f"[0, 1], got k1={k1}, k2={k2}, lambda_value={lambda_value}"
            )
        self.topk = tuple(topk)
        self.protocol = protocol
        self.re_ranking = re_ranking
        self.k1, self.k2, self.lambda_value = k1, k2, lambda_value

    def check(self, query: Labels, gallery: Labels) -> None:
        """Make sure that identities and cameras of both sides can be scored.

        Raises:
            DataError: identities are unknown, or cameras are and the protocol needs them.
        """
        (query_pids, query_camids), (gallery_pids, gallery_camids) = query, gallery
        if query_pids is None or gallery_pids is None:
            raise DataError("query or gallery images have no identities, so they cannot be scored")
        if self.protocol == "cross_camera" and (query_camids is None or gallery_camids is None):
            raise DataError(
                "query or gallery images have no camera numbers, which protocol cross_camera "
                "needs. Set Metric.Eval.0.ReIDMetric.protocol=all."
            )

    def __call__(
        self, query: Side, gallery: Side, *, processes: Processes = ONE_PROCESS
    ) -> ReIDResult:
        """Evaluate; see `ppcls_ise.metrics.evaluate_rank` for the arrays, the cost and the
        processes.

        Raises:
            DataError: identities are unknown, or cameras are and the protocol needs them.
        """
        (query_features, query_pids, query_camids) = query
        (gallery_features, gallery_pids, gallery_camids) = gallery
        self.check((query_pids, query_camids), (gallery_pids, gallery_camids))
        assert query_pids is not None and gallery_pids is not None
        distances = None
        if self.re_ranking:
            distances = re_ranking(
                query_features,
                gallery_features,
                k1=self.k1,
                k2=self.k2,
                lambda_value=self.lambda_value,
                processes=processes,
            )
        ranks = evaluate_rank(
            query_features,
            gallery_features,
            query_pids,
            gallery_pids,
            query_camids,
            gallery_camids,
            max_rank=max(50, *self.topk),
            protocol=self.protocol,
            distmat=distances,
            processes=processes,
        )
        return ReIDResult(ranks, len(gallery_features), self.topk, self.protocol)
