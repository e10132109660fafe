# SPDX-License-Identifier: Apache-2.0
"""Soft memberships of images in the neighborhoods of others, and local query expansion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.k_reciprocal import list_matrix

_BLOCK_ROWS = 4096
_PAIR_CHUNK_VALUES = 1 << 20

# A neighbor list: indices [N, w] (-1 = empty) and similarities [N, w].
Lists = tuple[np.ndarray, np.ndarray]


def pair_similarities(features: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Inner products [P] float32 of the pairs (left[p], right[p])."""
    products = np.empty(len(left), dtype=np.float32)
    step = max(1, _PAIR_CHUNK_VALUES // max(features.shape[1], 1))
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        products[part] = np.einsum("ij,ij->i", features[left[part]], features[right[part]])
    return products


def set_similarities(
    features: np.ndarray, sets: sparse.csr_matrix, known: Sequence[Lists]
) -> np.ndarray:
    """Similarity of every stored pair of ``sets``, [nnz] float32, in storage order.

    Most pairs are in a neighbor list of either side already; the rest are multiplied out.
    """
    count = sets.shape[0]
    similarities = np.empty(sets.nnz, dtype=np.float32)
    for start in range(0, count, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, count)
        begin, end = sets.indptr[start], sets.indptr[stop]
        row = np.repeat(np.arange(start, stop), np.diff(sets.indptr[start : stop + 1]))
        column = sets.indices[begin:end].astype(np.int64)
        found = np.zeros(end - begin, dtype=bool)
        for indices, values in known:
            line = np.repeat(np.arange(start, stop), indices.shape[1])
            keys = line * count + indices[start:stop].ravel()
            keys[indices[start:stop].ravel() < 0] = -1
            order = np.argsort(keys)
            keys = keys[order]
            place = np.minimum(np.searchsorted(keys, row * count + column), len(keys) - 1)
            hit = keys[place] == row * count + column
            similarities[begin:end][hit] = values[start:stop].ravel()[order[place[hit]]]
            found |= hit
        missing = np.flatnonzero(~found)
        similarities[begin + missing] = pair_similarities(features, row[missing], column[missing])
    return similarities


def soft_memberships(sets: sparse.csr_matrix, similarities: np.ndarray) -> sparse.csr_matrix:
    """V_ij = softmax over j in the set of row i of -d_ij, d_ij = 2 - 2·<x_i, x_j>; [N, N] float32.

    Rows sum to 1; an empty set gives an empty row.
    """
    filled = np.diff(sets.indptr) > 0
    starts = sets.indptr[:-1][filled]
    sizes = np.diff(sets.indptr)[filled]
    weights = 2.0 * similarities.astype(np.float64) - 2.0
    if len(starts):
        weights = np.exp(weights - np.repeat(np.maximum.reduceat(weights, starts), sizes))
        weights /= np.repeat(np.add.reduceat(weights, starts), sizes)
    data = weights.astype(np.float32)
    return sparse.csr_matrix((data, sets.indices, sets.indptr), shape=sets.shape)


def query_expansion(memberships: sparse.csr_matrix, lists: np.ndarray) -> sparse.csr_matrix:
    """V_i <- mean of V_j over the filled entries j of row i of ``lists``; rows sorted by column."""
    mean = list_matrix(lists, len(lists)).astype(np.float32)
    sizes = np.diff(mean.indptr)
    mean.data /= np.repeat(sizes, sizes).astype(np.float32)
    blocks = []
    for start in range(0, len(lists), _BLOCK_ROWS):
        block = (mean[start : start + _BLOCK_ROWS] @ memberships).tocsr()
        block.sort_indices()
        blocks.append(block)
    return sparse.vstack(blocks, format="csr") if blocks else memberships.copy()
