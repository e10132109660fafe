# SPDX-License-Identifier: Apache-2.0
"""The evaluation that the YAML names, and how its result reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ppcls_ise.clustering.processes import ONE_PROCESS, Processes
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.metrics.rank import RankResult, evaluate_rank
from ppcls_ise.metrics.re_ranking import re_ranking
from ppcls_ise.utils.components import register

_SHOWN = 5

AUTO, CROSS_TRACKLET = "auto", "cross_tracklet"
# Which matches do not count, in words.
_RULES = {
    "cross_camera": "from another camera",
    CROSS_TRACKLET: "in another tracklet",
    "all": "",
}


class Labels(NamedTuple):
    """What is known of N images: identities, cameras and tracklets [N], or None.

    Tracklets below 0 are none; query and gallery number theirs alike.
    """

    pids: np.ndarray | None
    camids: np.ndarray | None
    tracklet_ids: np.ndarray | None = None


class Side(NamedTuple):
    """Features [N, D] of query or gallery, and what is known of the images; see `Labels`."""

    features: np.ndarray
    pids: np.ndarray | None
    camids: np.ndarray | None
    tracklet_ids: np.ndarray | None = None

    @property
    def labels(self) -> Labels:
        return Labels(*self[1:])


def nearest_images(
    query: Side, gallery: Side, row: int, count: int, *, by_camera: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The gallery images most similar to one query, without those that an evaluation leaves out:
    those of its identity and tracklet and, ``by_camera``, of its identity and camera.

    Returns:
        Indices, at most ``count``, best first, equal scores by index; and their inner products.
        O(G D).
    """
    scores = gallery.features @ query.features[row]
    groups = [(query.tracklet_ids, gallery.tracklet_ids)]
    if by_camera:
        groups.append((query.camids, gallery.camids))
    if query.pids is not None and gallery.pids is not None:
        own = np.zeros(len(scores), bool)
        for mine, theirs in groups:
            if mine is not None and theirs is not None and mine[row] >= 0:
                own |= theirs == mine[row]
        scores = np.where(own & (gallery.pids == query.pids[row]), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")
    order = order[np.isfinite(scores[order])][:count]
    return order, scores[order]


@dataclass(frozen=True)
class ReIDResult:
    """A `RankResult` with what is needed to print it.

    Attributes:
        ranks: the numbers.
        num_gallery: images in the gallery.
        topk: ranks to show.
        protocol: the one that was used; see `ReIDMetric`.
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
        rule = f"the gallery has no image of the same identity {_RULES[self.protocol]}".rstrip()
        if self.protocol != "all":
            rule += " (Metric.Eval.0.ReIDMetric.protocol=all would count all others, too)"
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
                f"protocol {self.protocol}, a match is an image of the same identity "
                f"{_RULES[self.protocol]}".rstrip()
                + ". Check the query and gallery folders, or set "
                "Metric.Eval.0.ReIDMetric.protocol=all."
            )


@register("metric")
class ReIDMetric:
    """CMC, mAP and mINP by the Market-1501 protocol, for ``Metric.Eval`` in the YAML.

    Args:
        topk: ranks to show.
        protocol: which gallery images of the query's identity do not count. ``cross_camera``: those
            of its camera (the Market-1501 rule), and those of its tracklet, where tracklets are
            known; ``cross_tracklet``: those of its tracklet, for data without cameras; ``all``: all
            count; ``auto``: by camera where cameras are known, else by tracklet.
        re_ranking: rank by k-reciprocal re-ranking instead of the plain distance.
        k1, k2, lambda_value: parameters of the re-ranking.
    """

    def __init__(
        self,
        topk: Sequence[int] = (1, 5, 10),
        protocol: str = AUTO,
        re_ranking: bool = False,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
    ) -> None:
        if protocol not in (known := (AUTO, *_RULES)):
            raise ConfigError(
                "Metric.Eval.0.ReIDMetric.protocol has to be one of "
                f"{', '.join(known)}, got {protocol!r}"
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

    def check(self, query: Labels, gallery: Labels) -> str:
        """Make sure that both sides can be scored.

        Returns:
            The protocol: "cross_camera", "cross_tracklet" or "all".

        Raises:
            DataError: identities are unknown, or what the protocol needs is.
        """
        query, gallery = Labels(*query), Labels(*gallery)
        if query.pids is None or gallery.pids is None:
            raise DataError("query or gallery images have no identities, so they cannot be scored")
        cameras = query.camids is not None and gallery.camids is not None
        tracklets = query.tracklet_ids is not None and gallery.tracklet_ids is not None
        protocol = self.protocol
        if protocol == AUTO:
            protocol = "cross_camera" if cameras or not tracklets else CROSS_TRACKLET
        if protocol == "cross_camera" and not cameras:
            other = CROSS_TRACKLET if tracklets else "all"
            raise DataError(
                "query or gallery images have no camera numbers, which protocol cross_camera "
                f"needs. Set Metric.Eval.0.ReIDMetric.protocol={other}."
            )
        if protocol == CROSS_TRACKLET and not tracklets:
            raise DataError(
                "query or gallery images are in no tracklets, which protocol cross_tracklet needs. "
                "Set Metric.Eval.0.ReIDMetric.protocol=all."
            )
        return protocol

    def __call__(
        self, query: Side, gallery: Side, *, processes: Processes = ONE_PROCESS
    ) -> ReIDResult:
        """Evaluate; see `ppcls_ise.metrics.evaluate_rank` for the arrays, the cost and the
        processes.

        Raises:
            DataError: identities are unknown, or what the protocol needs is.
        """
        query, gallery = Side(*query), Side(*gallery)
        protocol = self.check(query.labels, gallery.labels)
        assert query.pids is not None and gallery.pids is not None
        distances = None
        if self.re_ranking:
            distances = re_ranking(
                query.features,
                gallery.features,
                k1=self.k1,
                k2=self.k2,
                lambda_value=self.lambda_value,
                processes=processes,
            )
        known = query.tracklet_ids is not None and gallery.tracklet_ids is not None
        by_tracklet = known and protocol != "all"
        ranks = evaluate_rank(
            query.features,
            gallery.features,
            query.pids,
            gallery.pids,
            query.camids,
            gallery.camids,
            max_rank=max(50, *self.topk),
            protocol="cross_camera" if protocol == "cross_camera" else "all",
            query_tracklets=query.tracklet_ids if by_tracklet else None,
            gallery_tracklets=gallery.tracklet_ids if by_tracklet else None,
            distmat=distances,
            processes=processes,
        )
        return ReIDResult(ranks, len(gallery.features), self.topk, protocol)
