# SPDX-License-Identifier: Apache-2.0
"""DBSCAN on a sparse distance graph."""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

OUTLIER = -1


def dbscan(graph: sparse.csr_matrix, eps: float, min_samples: int = 4) -> np.ndarray:
    """Density-based clusters of a graph of distances (Ester et al., KDD 1996);
    Clustering (11), Clustering (12).

    i and j are neighbors iff a distance <= eps is stored for them (compared in the dtype of the
    graph); every row is its own neighbor, stored or not. Core rows have at least ``min_samples``
    neighbors; clusters are the connected components of core rows, numbered by their lowest core
    row; other rows join the lowest-numbered cluster among their core neighbors; the rest is -1.
    This is the numbering of scikit-learn. Time and memory linear in the stored entries.

    Args:
        graph: [N, N] symmetric, zeros stored explicitly; pairs not stored are farther than eps.
            A dense array is taken too, every entry of it.
        eps: largest distance between neighbors.
        min_samples: neighbors of a core row, itself included; at least 1.

    Returns:
        labels [N] int64.

    Raises:
        ValueError: eps negative or NaN, min_samples < 1, graph not square.
    """
    if math.isnan(eps) or eps < 0:
        raise ValueError(f"Clustering.eps must be a number >= 0, got {eps}")
    if min_samples < 1:
        raise ValueError(f"Clustering.min_samples must be at least 1, got {min_samples}")
    matrix = sparse.csr_matrix(graph) if sparse.issparse(graph) else _all_pairs(graph)
    count = matrix.shape[0]
    if matrix.shape[1] != count:
        raise ValueError(f"graph must be square, got shape {matrix.shape}")
    row = np.repeat(np.arange(count), np.diff(matrix.indptr))
    if matrix.dtype.kind == "f":
        eps = matrix.dtype.type(eps)  # a numpy float64 would widen the comparison
    near = (matrix.data <= eps) & (matrix.indices != row)
    row, column = row[near], matrix.indices[near]
    core = np.bincount(row, minlength=count) + 1 >= min_samples

    both = core[row] & core[column]
    links = sparse.csr_matrix(
        (np.ones(np.count_nonzero(both), dtype=np.int8), (row[both], column[both])),
        shape=(count, count),
    )
    component = connected_components(links, directed=False)[1]
    labels = np.full(count, OUTLIER, dtype=np.int64)
    _, first, inverse = np.unique(component[core], return_index=True, return_inverse=True)
    # Number the components by their first (lowest) core row.
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    labels[core] = number[inverse.ravel()]

    border = ~core[row] & core[column]
    reached = np.full(count, count, dtype=np.int64)
    np.minimum.at(reached, row[border], labels[column[border]])
    labels[reached < count] = reached[reached < count]
    return labels


def _all_pairs(distances: np.ndarray) -> sparse.csr_matrix:
    """A dense matrix with every entry stored, zeros too (scipy would drop them)."""
    dense = np.asarray(distances)
    if dense.ndim != 2:
        raise ValueError(f"graph must be square, got shape {dense.shape}")
    rows, columns = dense.shape
    indices = np.tile(np.arange(columns), rows)
    return sparse.csr_matrix(
        (dense.ravel(), indices, np.arange(0, rows * columns + 1, columns)), shape=dense.shape
    )
