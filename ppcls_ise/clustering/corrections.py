# SPDX-License-Identifier: Apache-2.0
"""What a person found wrong with clusters, applied to their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.cluster_split import split
from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.errors import DataError, shown


class Correction(NamedTuple):
    """``merge``: ``cluster`` and ``other`` are one person. ``split``: ``cluster`` shows several.
    ``remove``: it shows none, or the image ``path`` is not of it."""

    action: str
    cluster: int
    other: int | None = None
    path: str = ""

    def __str__(self) -> str:
        more = f" with {self.other}" if self.other is not None else ""
        return f"{self.action} {self.cluster}{more}" + (f" {shown(self.path)}" if self.path else "")


class Corrector:
    """Labels that corrections are applied to.

    Numbers are stable: clusters that no correction names keep theirs. ``merge`` leaves the lower
    number; ``split`` leaves the number to the largest part and gives the others numbers that were
    never used, see `split`; ``remove`` makes outliers of the images.

    Args:
        labels: [N] int64, -1 = outlier.
        paths: of the N images.
        features: [N, D] unit rows.
        graph: [N, N] Jaccard distances; those between members of a cluster count.
        eps: of the clusters.
        min_samples: see `split`.
    """

    def __init__(
        self,
        labels: np.ndarray,
        paths: Sequence[str],
        features: np.ndarray,
        graph: sparse.csr_matrix,
        eps: float,
        min_samples: int = 4,
    ) -> None:
        self._first = labels
        self._row = {path: row for row, path in enumerate(paths)}
        self._features, self._graph = features, graph
        self._eps, self._min_samples = eps, min_samples

    def __call__(self, corrections: Sequence[Correction]) -> np.ndarray:
        """Labels [N] after all of them, in this order.

        A number means what the corrections before it left; one that was merged into another means
        that one, so that a person in three clusters takes two lines in any order.

        Raises:
            DataError: a cluster that there is not, or not any more, that cannot be split, or an
                image that is not in it; names the correction.
        """
        labels = self._first.copy()
        unused = int(labels.max(initial=OUTLIER)) + 1
        merged: dict[int, int] = {}
        removed: dict[int, int] = {}

        def present(given: int, number: int, correction: Correction) -> int:
            cluster = given
            while cluster in merged:
                cluster = merged[cluster]
            if cluster >= 0 and (labels == cluster).any():
                return cluster
            why = "there was never one of that number"
            if cluster in removed:
                why = f"correction {removed[cluster]} removed it"
            raise DataError(
                f"correction {number} ({correction}): there is no cluster {given}: {why}"
            )

        for number, correction in enumerate(corrections, 1):
            cluster = present(correction.cluster, number, correction)
            members = labels == cluster
            if correction.action == "merge" and correction.other is not None:
                other = present(correction.other, number, correction)
                if other != cluster:
                    low, high = sorted((cluster, other))
                    labels[labels == high] = low
                    merged[high] = low
            elif correction.action == "split":
                rows = np.flatnonzero(members)
                if len(rows) < 2:
                    raise DataError(f"correction {number} ({correction}): it has one image")
                graph = self._graph[rows][:, rows]
                parts = split(self._features[rows], graph, self._eps, self._min_samples)
                labels[rows] = np.where(parts == 0, cluster, unused + parts - 1)
                unused += int(parts.max())
            elif correction.action == "remove":
                if correction.path:
                    row = self._row.get(correction.path)
                    if row is None or not members[row]:
                        raise DataError(
                            f"correction {number} ({correction}): that image is not in the cluster"
                        )
                    labels[row] = OUTLIER
                else:
                    labels[members] = OUTLIER
                if not (labels == cluster).any():
                    removed[cluster] = number
            else:
                raise DataError(
                    f"correction {number} ({correction}): there are merge (of two clusters), split "
                    "and remove"
                )
        return labels
