# SPDX-License-Identifier: Apache-2.0
"""What a person found wrong with clusters, applied to their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.cluster_split import split
from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.errors import DataError

ACTIONS = ("merge", "split", "remove")


class Correction(NamedTuple):
    """``merge`` of two or more clusters, ``split`` or ``remove`` of one or more."""

    action: str
    clusters: tuple[int, ...]


def apply_corrections(
    labels: np.ndarray,
    corrections: Sequence[Correction],
    *,
    features: np.ndarray,
    graph: sparse.csr_matrix,
    eps: float,
    min_samples: int = 4,
) -> np.ndarray:
    """Labels after corrections, one after the other; a correction means the numbers that the ones
    before it left.

    Numbers are stable: clusters that no correction names keep theirs. ``merge`` leaves the lowest
    number; ``split`` leaves its number to the largest part and gives the others numbers that were
    never used, see `split`; ``remove`` makes outliers of the images.

    Args:
        labels: [N] int64, -1 = outlier.
        corrections: in their order.
        features: [N, D] unit rows.
        graph: [N, N] Jaccard distances; those between members of a cluster count.
        eps: of the clusters.
        min_samples: see `split`.

    Raises:
        DataError: a cluster that there is not, or not any more, or cannot be split; names it and
            the correction.
    """
    labels = labels.copy()
    gone: dict[int, str] = {}
    unused = int(labels.max(initial=OUTLIER)) + 1
    for number, (action, clusters) in enumerate(corrections, 1):
        where = f"correction {number} ({action} {' '.join(map(str, clusters))})"
        if action not in ACTIONS:
            raise DataError(f"{where}: an action is one of {', '.join(ACTIONS)}")
        if len(set(clusters)) != len(clusters) or len(clusters) < (2 if action == "merge" else 1):
            least = "two clusters or more" if action == "merge" else "a cluster"
            raise DataError(f"{where}: name {least}, each once")
        present = set(np.unique(labels[labels != OUTLIER]).tolist())
        for cluster in clusters:
            if cluster not in present:
                reason = gone.get(cluster) or f"the highest number is {max(present, default=-1)}"
                raise DataError(f"{where}: there is no cluster {cluster}: {reason}")
        if action == "merge":
            for cluster in sorted(clusters)[1:]:
                labels[labels == cluster] = min(clusters)
                gone[cluster] = f"correction {number} merged it into {min(clusters)}"
        elif action == "remove":
            for cluster in clusters:
                labels[labels == cluster] = OUTLIER
                gone[cluster] = f"correction {number} removed it"
        else:
            for cluster in clusters:
                rows = np.flatnonzero(labels == cluster)
                if len(rows) < 2:
                    raise DataError(f"{where}: cluster {cluster} has one image")
                parts, _ = split(features[rows], graph[rows][:, rows], eps, min_samples)
                labels[rows] = np.where(parts == 0, cluster, unused + parts - 1)
                unused += int(parts.max())
    return labels
