# SPDX-License-Identifier: Apache-2.0
"""One cluster as two or more: what its images would be at a smaller eps."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.doubts import split_parts


def split(
    features: np.ndarray, graph: sparse.csr_matrix, eps: float, min_samples: int = 4
) -> np.ndarray:
    """Parts of one cluster.

    Those of `split_parts`, which are what the page of clusters proposes; an image in none of them,
    or in one too small to count, joins the part whose mean is nearest. A cluster that does not fall
    apart is cut across its longest axis: by the sign of the projection of its centered features on
    their first principal component.

    Args:
        features: [n, D] unit rows of the members, n >= 2.
        graph: [n, n] Jaccard distances between them, as `jaccard_graph` makes them.
        eps: at which they are one cluster.
        min_samples: see `dbscan`.

    Returns:
        part of each member [n] int64, 0 being the largest and the others by their first member.
        Deterministic. O(stored entries + n·D·min(n, D)).

    Raises:
        ValueError: fewer than two members.
    """
    if len(features) < 2:
        raise ValueError("a cluster of one image cannot be split")
    found = split_parts(graph, eps, min_samples)
    return _largest_first(_two_sides(features) if found is None else _joined(features, found[0]))


def _joined(features: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Members without a part join the nearest mean."""
    means = np.stack([features[parts == part].mean(axis=0) for part in range(parts.max() + 1)])
    left = parts == OUTLIER
    squares = (means**2).sum(axis=1)
    parts = parts.copy()
    parts[left] = np.argmin(squares - 2 * features[left] @ means.T, axis=1)
    return parts


def _two_sides(features: np.ndarray) -> np.ndarray:
    centered = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    # Of n members and D values, the smaller square matrix.
    if len(centered) <= centered.shape[1]:
        values, vectors = np.linalg.eigh(centered @ centered.T)
        along = vectors[:, -1]
    else:
        values, vectors = np.linalg.eigh(centered.T @ centered)
        along = centered @ vectors[:, -1]
    sides = (along >= 0).astype(np.int64)
    if sides.all() or not sides.any() or values[-1] <= 0:  # all alike
        sides = (np.arange(len(features)) >= len(features) // 2).astype(np.int64)
    return sides


def _largest_first(parts: np.ndarray) -> np.ndarray:
    names, first, inverse, sizes = np.unique(
        parts, return_index=True, return_inverse=True, return_counts=True
    )
    by_first = np.argsort(first)
    largest = by_first[np.argmax(sizes[by_first])]
    order = [largest, *(name for name in by_first if name != largest)]
    number = np.empty(len(names), np.int64)
    number[order] = np.arange(len(names))
    return number[inverse.reshape(-1)]
