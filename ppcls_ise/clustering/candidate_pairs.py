# SPDX-License-Identifier: Apache-2.0
"""Pairs of membership rows that may overlap by more than a bound, found by sparse products."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

# Share of the bound that a row may lose before the products: more makes them cheaper and the
# candidates more numerous.
_DROPPED_SHARE = 0.75
_ROUNDING = 1e-5
# Multiplications per product: its result takes at most 8 bytes for each.
_BLOCK_WORK = 1 << 20
_TRIANGLE_STEPS = 6
_BLOCK_ROWS = 4096


def candidate_pairs(
    memberships: sparse.csr_matrix, least_overlap: float
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """All pairs i < j with S_ij = sum_q min(V_iq, V_jq) >= least_overlap, and some others.

    Columns are put in one order, common ones first, and every row drops its first entries as long
    as they weigh at most delta. For two rows let q be the later one of their last dropped columns:
    what they share up to q weighs at most delta, and past it neither row lost anything. With
    min(a, b) <= sqrt(a·b), S_ij <= delta + sum over the kept entries of sqrt(V_iq)·sqrt(V_jq),
    which is a sparse matrix product.

    Args:
        memberships: V [N, N] float32, non-negative.
        least_overlap: bound, above 0.

    Yields:
        Number of rows done, then rows i [P] and columns j [P] of one block of rows, i < j.
    """
    count = memberships.shape[0]
    delta = _DROPPED_SHARE * least_overlap
    kept = _without_common_columns(memberships, delta)
    size = np.bincount(kept.indices, minlength=count).astype(np.int32)
    total = np.zeros(kept.nnz + 1, dtype=np.int64)
    np.cumsum(size[kept.indices], out=total[1:])
    work = total[kept.indptr]
    del total
    step = max(1, -(-count // _TRIANGLE_STEPS))
    for first in range(0, count, step):
        later = kept[first:].T.tocsr()
        start, last = first, min(first + step, count)
        while start < last:
            stop = int(np.searchsorted(work, work[start] + _BLOCK_WORK, side="right")) - 1
            stop = min(max(stop, start + 1), last)
            bound = kept[start:stop] @ later
            hit = np.flatnonzero(bound.data >= least_overlap - delta - _ROUNDING)
            row = np.searchsorted(bound.indptr, hit, side="right") - 1 + start
            column = bound.indices[hit] + first
            upper = column > row
            start = stop
            yield start, row[upper], column[upper]


def _without_common_columns(memberships: sparse.csr_matrix, delta: float) -> sparse.csr_matrix:
    """Square roots of V without the commonest columns of each row, of weight <= delta per row."""
    frequency = np.bincount(memberships.indices, minlength=memberships.shape[1])
    name = np.empty(len(frequency), dtype=np.int32)
    name[np.argsort(-frequency, kind="stable")] = np.arange(len(frequency))
    blocks = []
    for start in range(0, memberships.shape[0], _BLOCK_ROWS):
        block = memberships[start : start + _BLOCK_ROWS]
        block.indices = name[block.indices]
        block.has_sorted_indices = False
        block.sort_indices()
        total = np.cumsum(block.data, dtype=np.float64)
        before = np.concatenate([[0.0], total])[block.indptr[:-1]]
        keep = total - np.repeat(before, np.diff(block.indptr)) > delta
        starts = np.concatenate([[0], np.cumsum(keep)])[block.indptr]
        roots = np.sqrt(block.data[keep])
        blocks.append(sparse.csr_matrix((roots, block.indices[keep], starts), shape=block.shape))
    return sparse.vstack(blocks, format="csr") if blocks else memberships.copy()
