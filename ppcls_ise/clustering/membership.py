# SPDX-License-Identifier: Apache-2.0
"""Soft memberships of images in the neighborhoods of others, and local query expansion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.k_reciprocal import list_matrix

_BLOCK_ROWS = 4096

# A neighbor list: indices [N, w] (-1 = empty) and similarities [N, w].
Lists = tuple[np.ndarray, np.ndarray]


def set_similarities(
    features: np.ndarray, sets: sparse.csr_matrix, known: Sequence[Lists]
) -> np.ndarray:
    """Similarity of every stored pair of ``sets``, [nnz] float32, in storage order.

    Most pairs are in the neighbor list of their row already; the rest are multiplied out.
    """
    count = sets.shape[0]
    similarities = np.empty(sets.nnz, dtype=np.float32)
    unknown = []
    for start in range(0, count, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, count)
        begin, end = sets.indptr[start], sets.indptr[stop]
        row = np.repeat(np.arange(start, stop), np.diff(sets.indptr[start : stop + 1]))
        wanted = row * count + sets.indices[begin:end]
        missing = np.ones(end - begin, dtype=bool)
        for indices, values in known:
            keys = np.arange(start, stop)[:, None] * count + indices[start:stop]
            keys = np.where(indices[start:stop] < 0, -1, keys).ravel()
            order = np.argsort(keys)
            place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
            place = order[place]
            hit = keys[place] == wanted
            similarities[begin:end][hit] = values[start:stop].ravel()[place[hit]]
            missing &= ~hit
        unknown.append(begin + np.flatnonzero(missing))
    if unknown:
        _multiply_out(features, sets, np.concatenate(unknown), similarities)
    return similarities


def _multiply_out(
    features: np.ndarray, sets: sparse.csr_matrix, entries: np.ndarray, similarities: np.ndarray
) -> None:
    """Fill in the similarities of the given stored entries (ascending) of ``sets``."""
    cuts = np.searchsorted(entries, sets.indptr)
    columns = sets.indices[entries]
    # Rows that share neighbors follow each other, so that these are still in the caches.
    for row in rows_by_first_column(sets):
        part = slice(cuts[row], cuts[row + 1])
        if part.start < part.stop:
            products = np.einsum("ij,j->i", features[columns[part]], features[row])
            similarities[entries[part]] = products


def rows_by_first_column(matrix: sparse.csr_matrix) -> np.ndarray:
    """Row indices ordered by first stored column, empty rows last.

    Neighbors usually share their first neighbor (it is a min-hash of the set), so this brings
    similar rows together.
    """
    count = matrix.shape[0]
    first = np.full(count, count, dtype=np.int64)
    filled = np.diff(matrix.indptr) > 0
    first[filled] = matrix.indices[matrix.indptr[:-1][filled]]
    return np.argsort(first, kind="stable")


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
