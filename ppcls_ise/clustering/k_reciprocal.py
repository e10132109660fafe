# SPDX-License-Identifier: Apache-2.0
"""k-reciprocal neighbor sets as sparse 0/1 matrices."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.parallel import Progress, map_rows

_BLOCK_ROWS = 2048


def list_matrix(lists: np.ndarray, count: int) -> sparse.csr_matrix:
    """0/1 matrix [N, N] with a one where j is in row i of ``lists`` ([N, w], -1 = empty)."""
    filled = lists >= 0
    starts = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
    columns = lists[filled].astype(np.int32)
    ones = np.ones(len(columns), dtype=np.int32)
    matrix = sparse.csr_matrix((ones, columns, starts), shape=(len(lists), count))
    matrix.sort_indices()
    return matrix


def mutual_neighbors(lists: np.ndarray) -> sparse.csr_matrix:
    """{ (i, j) : j in list(i) and i in list(j) } as a symmetric 0/1 matrix [N, N]."""
    matrix = list_matrix(lists, len(lists))
    return matrix.multiply(matrix.T.tocsr()).tocsr()


def half_length(k1: int) -> int:
    """round(k1/2) + 1 with halves rounded to even, the length of the lists behind H."""
    return round(k1 / 2) + 1


def expanded_neighbors(
    reciprocal: sparse.csr_matrix, half: sparse.csr_matrix, *, progress: Progress | None = None
) -> sparse.csr_matrix:
    """R*(i) = R(i) and all H(j), j in R(i), with |H(j) & R(i)| > (2/3)·|H(j)|.

    Args:
        reciprocal: R, [N, N] 0/1.
        half: H, [N, N] 0/1 and symmetric.
        progress: called as progress("sets", done, total) with rows.

    Returns:
        R* as a matrix [N, N] whose stored entries are the set (values are positive counts), rows
        sorted by column. O(N·k1²) time, O(N·k1) memory.
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

    count = reciprocal.shape[0]
    blocks = list(map_rows(expand, count, _BLOCK_ROWS, "sets", progress))
    return sparse.vstack(blocks, format="csr") if blocks else reciprocal.copy()
