# SPDX-License-Identifier: Apache-2.0
"""Mean direction of the members of each cluster."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.parallel import ordered_map, spans
from ppcls_ise.clustering.row_set import as_features, unit_rows

_BLOCK_ROWS = 1024


def cluster_centroids(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """m_c = N( mean of N(x) over the members x of cluster c ), N(v) = v / max(|v|, 1e-12).

    Args:
        features: [N, D]; rows of length zero count as zero vectors.
        labels: [N] int64, -1 = outlier (left out), else 0..C-1.

    Returns:
        [C, D] float32. O(N·D) time.

    Raises:
        ValueError: labels do not fit the features.
    """
    matrix = as_features(features)
    if labels.shape != (len(matrix),):
        raise ValueError(f"labels must have shape ({len(matrix)},), got {labels.shape}")
    clusters = int(labels.max(initial=OUTLIER)) + 1
    if clusters > len(matrix) or labels.min(initial=OUTLIER) < OUTLIER:
        raise ValueError(f"labels of {len(matrix)} rows are -1 .. {len(matrix) - 1}")
    sums = np.zeros((clusters, matrix.shape[1]), dtype=np.float32)

    def add_up(span: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(labels[slice(*span)] != OUTLIER) + span[0]
        block = matrix[rows]
        unit_rows(block, out=block)
        present, place = np.unique(labels[rows], return_inverse=True)
        gather = sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (place.ravel(), np.arange(len(rows)))),
            shape=(len(present), len(rows)),
        )
        return present, gather @ block

    for present, part in ordered_map(add_up, spans(len(matrix) if clusters else 0, _BLOCK_ROWS)):
        sums[present] += part
    # The mean differs from the sum by a factor only, which normalization removes.
    return unit_rows(sums, out=sums)
