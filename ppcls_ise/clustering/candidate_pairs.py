# SPDX-License-Identifier: Apache-2.0
"""Pairs of membership rows that may overlap by more than a bound, found by sparse products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.membership import rows_by_first_column
from ppcls_ise.clustering.parallel import equal_work, map_rows, ordered_map, spans, stack_rows

Result = TypeVar("Result")
# Share of the bound that a row may lose before the products: more makes them cheaper and the
# candidates more numerous.
_DROPPED_SHARE = 0.75
_ROUNDING = 1e-5
# Multiplications per product: its result takes at most 8 bytes for each.
_BLOCK_WORK = 1 << 19
_TRIANGLE_STEPS = 6
_BLOCK_ROWS = 2048


def candidate_pairs(
    memberships: sparse.csr_matrix,
    least_overlap: float,
    found: Callable[[np.ndarray, np.ndarray], Result],
) -> Iterator[tuple[int, Result]]:
    """All pairs with S_ij = sum_q min(V_iq, V_jq) >= least_overlap, and some others, once each.

    Columns are put in one order, common ones first, and every row drops its first entries as long
    as they weigh at most delta. For two rows let q be the later one of their last dropped columns:
    what they share up to q weighs at most delta, and past it neither row lost anything. With
    min(a, b) <= sqrt(a·b), S_ij <= delta + sum over the kept entries of sqrt(V_iq)·sqrt(V_jq),
    which is a sparse matrix product.

    Args:
        memberships: V [N, N] float32, non-negative.
        least_overlap: bound, above 0.
        found: called with rows i [P] and columns j [P], i != j, by several threads.

    Yields:
        Number of rows done and the result of ``found``.
    """
    delta = _DROPPED_SHARE * least_overlap
    # Similar rows follow each other, so that what they multiply is still in the caches.
    order = rows_by_first_column(memberships)
    kept = _without_common_columns(memberships, order, delta)

    def multiply(block: tuple[int, int, int, int, sparse.csr_matrix]) -> tuple[int, Result]:
        done, start, stop, first, later = block
        bound = kept[start:stop] @ later
        hit = np.flatnonzero(bound.data >= least_overlap - delta - _ROUNDING)
        row = np.searchsorted(bound.indptr, hit, side="right") - 1 + start
        column = bound.indices[hit] + first
        del bound
        upper = column > row
        return done, found(order[row[upper]], order[column[upper]])

    yield from ordered_map(multiply, _blocks(kept))


def _blocks(kept: sparse.csr_matrix) -> Iterator[tuple[int, int, int, int, sparse.csr_matrix]]:
    """Products that make up the upper triangle of kept·keptᵀ, in blocks of about equal work.

    Yields the number of rows done (their share of the triangle), rows start and stop, and the rows
    from ``first`` on that they are multiplied with, transposed.
    """
    count = kept.shape[0]
    ones = np.ones(kept.nnz, dtype=np.int8)
    pattern = sparse.csr_matrix((ones, kept.indices, kept.indptr), shape=kept.shape)
    steps = list(spans(count, max(1, -(-count // _TRIANGLE_STEPS))))
    total, before = sum(last for _, last in steps), 0
    for first, last in steps:
        later = kept[first:last].T.tocsr()
        work = np.concatenate([[0], np.cumsum(pattern[:last] @ np.diff(later.indptr).astype(int))])
        for start, stop in equal_work(work, _BLOCK_WORK):
            yield (before + stop) * count // total, start, stop, first, later
        before += last


def _without_common_columns(
    memberships: sparse.csr_matrix, order: np.ndarray, delta: float
) -> sparse.csr_matrix:
    """Square roots of the rows of V, in the given order, without the commonest columns of each row,
    of weight <= delta per row."""
    frequency = np.bincount(memberships.indices, minlength=memberships.shape[1])
    name = np.empty(len(frequency), dtype=np.int32)
    name[np.argsort(-frequency, kind="stable")] = np.arange(len(frequency))

    def drop(span: tuple[int, int]) -> sparse.csr_matrix:
        block = memberships[order[slice(*span)]]
        block.indices = name[block.indices]
        block.has_sorted_indices = False
        block.sort_indices()
        total = np.cumsum(block.data, dtype=np.float64)
        before = np.concatenate([[0.0], total])[block.indptr[:-1]]
        keep = total - np.repeat(before, np.diff(block.indptr)) > delta
        starts = np.concatenate([[0], np.cumsum(keep)])[block.indptr]
        roots = np.sqrt(block.data[keep])
        return sparse.csr_matrix((roots, block.indices[keep], starts), shape=block.shape)

    blocks = map_rows(drop, len(order), _BLOCK_ROWS)
    return stack_rows(blocks, memberships.shape[1], memberships.nnz)
