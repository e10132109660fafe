# SPDX-License-Identifier: Apache-2.0
"""Soft memberships of images in the neighborhoods of others, and local query expansion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.parallel import Progress, map_rows, stack_rows
from ppcls_ise.clustering.row_set import inner_products

_BLOCK_ROWS = 2048
_PAIRS = 1 << 14

# A neighbor list: indices [N, w] (-1 = empty) and similarities [N, w].
Lists = tuple[np.ndarray, np.ndarray]


def list_matrix(lists: np.ndarray, columns: tuple[int, int]) -> sparse.csr_matrix:
    """0/1 matrix [m, c] with a one where column j, start <= j < stop, is in row i of ``lists``
    ([m, w], -1 = empty)."""
    start, stop = columns
    filled = (lists >= start) & (lists < stop)
    starts = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    names = (lists[filled] - start).astype(np.int32)
    ones = np.ones(len(names), dtype=np.int32)
    matrix = sparse.csr_matrix((ones, names, starts), shape=(len(lists), stop - start))
    matrix.sort_indices()
    return matrix


def mutual_neighbors(lists: np.ndarray, rows: tuple[int, int]) -> sparse.csr_matrix:
    """{ (i, j) : j in list(i) and i in list(j) } as a 0/1 matrix [m, N], of the m rows
    (start, stop) of the N ``lists``."""
    named = list_matrix(lists[slice(*rows)], (0, len(lists)))
    return named.multiply(list_matrix(lists, rows).T.tocsr()).tocsr()


def half_length(k1: int) -> int:
    """round(k1/2) + 1 with halves rounded to even, the length of the lists behind H."""
    return round(k1 / 2) + 1


def expanded_neighbors(
    reciprocal: sparse.csr_matrix,
    half: sparse.csr_matrix,
    *,
    progress: Progress | None = None,
) -> sparse.csr_matrix:
    """R*(i) = R(i) and all H(j), j in R(i), with |H(j) & R(i)| > (2/3)·|H(j)|.

    Args:
        reciprocal: m rows of R, [m, N] 0/1.
        half: H, [N, N] 0/1 and symmetric.
        progress: called as progress("sets", done, total) with rows.

    Returns:
        R* of those rows as a matrix [m, N] whose stored entries are the set (values are positive
        counts), rows sorted by column. O(N·k1²) time, O(N·k1) memory.
    """
    size = np.diff(half.indptr)

    def expand(span: tuple[int, int]) -> sparse.csr_matrix:
        own = reciprocal[slice(*span)]
        # H is symmetric, so (R·H)_ij = |R(i) & H(j)|; only j in R(i) are asked for.
        chosen = (own @ half).multiply(own).tocsr()
        chosen.data = (3 * chosen.data > 2 * size[chosen.indices]).astype(np.int32)
        chosen.eliminate_zeros()
        block = own + chosen @ half
        block.sort_indices()
        return block

    blocks = list(map_rows(expand, reciprocal.shape[0], _BLOCK_ROWS, "sets", progress))
    return sparse.vstack(blocks, format="csr") if blocks else reciprocal


def set_similarities(
    features: np.ndarray, sets: sparse.csr_matrix, known: Sequence[Lists], first: int = 0
) -> np.ndarray:
    """Similarity of every stored pair of ``sets``, [nnz] float32, in storage order.

    Most pairs are in the neighbor list of their row already; the rest are multiplied out.
    ``sets`` [m, N] begin at row ``first`` of the N.
    """
    length, count = sets.shape
    similarities = np.empty(sets.nnz, dtype=np.float32)

    def look_up(span: tuple[int, int]) -> np.ndarray:
        """Fill in what is known; the stored entries that are not, and their rows."""
        rows = np.arange(*span) + first
        begin, end = sets.indptr[span[0]], sets.indptr[span[1]]
        row = np.repeat(rows, np.diff(sets.indptr[span[0] : span[1] + 1]))
        # Empty places of a list (-1) get a key that no column has.
        wanted = row * (count + 1) + sets.indices[begin:end]
        missing = np.ones(end - begin, dtype=bool)
        for indices, values in known:
            order = np.argsort(indices[rows], axis=1)
            keys = np.take_along_axis(indices[rows], order, axis=1)
            keys += (rows * (count + 1))[:, None]
            place = np.minimum(np.searchsorted(keys.ravel(), wanted), keys.size - 1)
            hit = (keys.ravel()[place] == wanted) & missing
            found = np.take_along_axis(values[rows], order, axis=1).ravel()[place[hit]]
            similarities[begin:end][hit] = found
            missing &= ~hit
        return np.array([begin + np.flatnonzero(missing), row[missing]])

    unknown = [np.zeros((2, 0), dtype=np.int64)]
    unknown += map_rows(look_up, length, _BLOCK_ROWS)
    entry, row = np.concatenate(unknown, axis=1)
    # Rows that share neighbors follow each other, so that these are still in the caches.
    rank = np.empty(length, dtype=np.int64)
    rank[rows_by_first_column(sets)] = np.arange(length)
    order = np.argsort(rank[row - first], kind="stable")
    entry, row = entry[order], row[order]

    def multiply(span: tuple[int, int]) -> None:
        part = entry[slice(*span)]
        similarities[part] = inner_products(features, row[slice(*span)], sets.indices[part])

    list(map_rows(multiply, len(entry), _PAIRS))
    return similarities


def rows_by_first_column(matrix: sparse.csr_matrix) -> np.ndarray:
    """Row indices ordered by first stored column, empty rows last.

    Neighbors usually share their first neighbor (it is a min-hash of the set), so this brings
    similar rows together.
    """
    first = np.full(matrix.shape[0], matrix.shape[1], dtype=np.int64)
    filled = np.diff(matrix.indptr) > 0
    first[filled] = matrix.indices[matrix.indptr[:-1][filled]]
    return np.argsort(first, kind="stable")


def soft_memberships(sets: sparse.csr_matrix, similarities: np.ndarray) -> sparse.csr_matrix:
    """V_ij = softmax over j in the set of row i of -d_ij, d_ij = 2 - 2·<x_i, x_j>; [m, N] float32.

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


def query_expansion(
    memberships: sparse.csr_matrix, lists: np.ndarray, *, progress: Progress | None = None
) -> sparse.csr_matrix:
    """V_i <- mean of V_j over the filled entries j of row i of ``lists``; rows sorted by column.

    ``lists`` [m, w] may be those of some of the rows, of which the result [m, N] then consists.
    ``progress`` is called as progress("expansion", done, total) with rows.
    """
    count = memberships.shape[1]
    mean = list_matrix(lists, (0, count)).astype(np.float32)
    sizes = np.diff(mean.indptr)
    mean.data /= np.repeat(sizes, sizes).astype(np.float32)

    def average(span: tuple[int, int]) -> sparse.csr_matrix:
        block = (mean[slice(*span)] @ memberships).tocsr()
        block.sort_indices()
        return block

    blocks = map_rows(average, len(lists), _BLOCK_ROWS, "expansion", progress)
    return stack_rows(blocks, count, int(np.diff(memberships.indptr)[mean.indices].sum()))
