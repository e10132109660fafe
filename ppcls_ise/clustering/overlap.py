# SPDX-License-Identifier: Apache-2.0
"""Jaccard distances of sparse membership rows: only pairs that share a column are touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.membership import rows_by_first_column
from ppcls_ise.clustering.parallel import (
    Progress,
    equal_work,
    map_rows,
    ordered_map,
    spans,
    stack_rows,
)
from ppcls_ise.clustering.processes import (
    ONE_PROCESS,
    Processes,
    deal,
    own_rows,
    whole_matrix,
)

Result = TypeVar("Result")
# Share of the bound that a row may lose before the products: more makes them cheaper and the
# candidates more numerous.
_DROPPED_SHARE = 0.75
_ROUNDING = 1e-5
# Multiplications per product: its result takes at most 8 bytes for each.
_BLOCK_WORK = 1 << 19
_TRIANGLE_STEPS = 6
_BLOCK_ROWS = 2048
_BLOCK_ENTRIES = 1 << 17
_PAIR_CHUNK = 2048
# Bounds on the overlap from here on leave few pairs, which are cheaper to find first.
_SELECTIVE_OVERLAP = 0.25

# Rows, columns and distances of pairs, and what makes them from rows, columns and overlaps.
Found = tuple[np.ndarray, np.ndarray, np.ndarray]
Close = Callable[[np.ndarray, np.ndarray, np.ndarray], Found]


def candidate_pairs(
    memberships: sparse.csr_matrix,
    least_overlap: float,
    found: Callable[[np.ndarray, np.ndarray], Result],
    processes: Processes = ONE_PROCESS,
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
        processes: each yields its part of the pairs.

    Yields:
        Number of rows done and the result of ``found``.
    """
    delta = _DROPPED_SHARE * least_overlap
    # Similar rows follow each other, so that what they multiply is still in the caches.
    order = rows_by_first_column(memberships)
    kept = _without_common_columns(memberships, order, delta, processes)

    def multiply(block: tuple[int, int, int, int, sparse.csr_matrix]) -> tuple[int, Result]:
        done, start, stop, first, later = block
        bound = kept[start:stop] @ later
        hit = np.flatnonzero(bound.data >= least_overlap - delta - _ROUNDING)
        row = np.searchsorted(bound.indptr, hit, side="right") - 1 + start
        column = bound.indices[hit] + first
        del bound
        upper = column > row
        return done, found(order[row[upper]], order[column[upper]])

    yield from ordered_map(multiply, deal(_blocks(kept), processes))


def _blocks(kept: sparse.csr_matrix) -> Iterator[tuple[int, int, int, int, sparse.csr_matrix]]:
    """Products that make up the upper triangle of kept·keptᵀ, in blocks of about equal work.

    Yields the number of rows done (their share of the triangle), rows start and stop, and the rows
    from ``first`` on that they are multiplied with, transposed.
    """
    count = kept.shape[0]
    steps = list(spans(count, max(1, -(-count // _TRIANGLE_STEPS))))
    total, before = sum(last for _, last in steps), 0
    for first, last in steps:
        later = kept[first:last].T.tocsr()
        work = _work(kept, last, np.diff(later.indptr).astype(np.int64))
        for start, stop in equal_work(work, _BLOCK_WORK):
            yield (before + stop) * count // total, start, stop, first, later
        before += last


def _work(kept: sparse.csr_matrix, count: int, sizes: np.ndarray) -> np.ndarray:
    """Of all rows before each of the first ``count``: their entries, each as often as the size of
    its column says, [count + 1]."""
    work = np.zeros(count + 1, dtype=np.int64)
    for start, stop in spans(count, _BLOCK_ROWS):
        begin, end = kept.indptr[start], kept.indptr[stop]
        sums = np.concatenate([[0], np.cumsum(sizes[kept.indices[begin:end]])])
        work[start + 1 : stop + 1] = work[start] + sums[kept.indptr[start + 1 : stop + 1] - begin]
    return work


def _without_common_columns(
    memberships: sparse.csr_matrix, order: np.ndarray, delta: float, processes: Processes
) -> sparse.csr_matrix:
    """Square roots of the rows of V, in the given order, without the commonest columns of each row,
    of weight <= delta per row."""
    first, last = memberships.indptr[list(own_rows(len(order), processes))]
    part = np.bincount(memberships.indices[first:last], minlength=memberships.shape[1])
    frequency = np.sum(processes.gather(part), axis=0)
    name = np.empty(len(frequency), dtype=np.int32)
    name[np.argsort(-frequency, kind="stable")] = np.arange(len(frequency))

    own = order[slice(*own_rows(len(order), processes))]

    def drop(span: tuple[int, int]) -> sparse.csr_matrix:
        block = memberships[own[slice(*span)]]
        block.indices = name[block.indices]
        block.has_sorted_indices = False
        block.sort_indices()
        total = np.cumsum(block.data, dtype=np.float64)
        before = np.concatenate([[0.0], total])[block.indptr[:-1]]
        keep = total - np.repeat(before, np.diff(block.indptr)) > delta
        starts = np.concatenate([[0], np.cumsum(keep)])[block.indptr]
        roots = np.sqrt(block.data[keep])
        return sparse.csr_matrix((roots, block.indices[keep], starts), shape=block.shape)

    blocks = map_rows(drop, len(own), _BLOCK_ROWS)
    return whole_matrix(stack_rows(blocks, memberships.shape[1], memberships.nnz), processes)


# Entries of the inverted lists handled at once: small enough for the caches.


def jaccard_distances(
    memberships: sparse.csr_matrix,
    max_distance: float,
    *,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> sparse.csr_matrix:
    """J_ij = 1 - S_ij / (2 - S_ij), S_ij = sum_q min(V_iq, V_jq), where J_ij < max_distance.

    O(sum over columns of (column size)²) time; memory O(entries of V and of the result).

    Args:
        memberships: V [N, N] float32, rows sorted by column.
        max_distance: bound, exclusive, compared with J as float32.
        processes: who shares the work; the matrix of the others but process 0 has no entries.
        progress: called as progress("jaccard", done, total) with rows.

    Returns:
        [N, N] float32, symmetric, diagonal stored as 0.0, rows sorted by column.
    """
    count = memberships.shape[0]
    bound = min(max(max_distance, 0.0), 1.0)
    least_overlap = 2.0 * (1.0 - bound) / (2.0 - bound)
    search = _selected_pairs if least_overlap >= _SELECTIVE_OVERLAP else _all_pairs

    def close(row: np.ndarray, column: np.ndarray, overlap: np.ndarray) -> Found:
        distance = np.maximum(1.0 - overlap / (2.0 - overlap), 0.0).astype(np.float32)
        keep = distance < np.float32(max_distance)
        return row[keep].astype(np.int32), column[keep].astype(np.int32), distance[keep]

    none: np.ndarray = np.zeros(0, dtype=np.int32)
    found: list[Found] = [(none, none, np.zeros(0, dtype=np.float32))]
    for done, pairs in search(memberships, least_overlap, close, processes):
        found.append(pairs)
        if progress is not None:
            progress("jaccard", done, count)
    row, column, distance = (
        processes.whole(np.concatenate(parts)) for parts in zip(*found, strict=True)
    )
    if processes.rank:
        return sparse.csr_matrix((count, count), dtype=np.float32)
    del found
    return _symmetric(row, column, distance, count, max_distance)


def _selected_pairs(
    memberships: sparse.csr_matrix, least_overlap: float, close: Close, processes: Processes
) -> Iterator[tuple[int, Found]]:
    """Overlaps of the pairs that may reach the bound."""

    def compare(rows: np.ndarray, columns: np.ndarray) -> Found:
        overlap = np.empty(len(rows), dtype=np.float64)
        for start in range(0, len(rows), _PAIR_CHUNK):
            part = slice(start, start + _PAIR_CHUNK)
            shared = memberships[rows[part]].minimum(memberships[columns[part]])
            total = np.concatenate([[0.0], np.cumsum(shared.data, dtype=np.float64)])
            overlap[part] = total[shared.indptr[1:]] - total[shared.indptr[:-1]]
        return close(rows, columns, overlap)

    return candidate_pairs(memberships, least_overlap, compare, processes)


def _all_pairs(
    memberships: sparse.csr_matrix, _: float, close: Close, processes: Processes
) -> Iterator[tuple[int, Found]]:
    """Overlaps of all pairs that share a column, by inverted lists.

    Column q of V names the rows that share q. Rows are visited by their first column, so that a
    block of rows touches few others and its sums fit a small table.
    """
    order = rows_by_first_column(memberships)
    rows = memberships[order]
    columns = sparse.csr_matrix(
        (np.arange(rows.nnz), rows.indices, rows.indptr), shape=rows.shape
    ).tocsc()
    member = columns.indices
    value = rows.data[columns.data]
    place = np.empty(rows.nnz, dtype=np.int64)
    place[columns.data] = np.arange(rows.nnz)
    # Of the rows that share column q, those at or after the own place: the upper triangle.
    length = columns.indptr[rows.indices + 1] - place
    work = np.concatenate([[0], np.cumsum(length)])[rows.indptr]

    def add_up(span: tuple[int, int]) -> tuple[int, Found]:
        start, stop = span
        entries = slice(rows.indptr[start], rows.indptr[stop])
        size = length[entries]
        row = np.repeat(np.arange(stop - start), np.diff(rows.indptr[start : stop + 1]))
        offset = place[entries] - (np.cumsum(size) - size)
        source = np.repeat(offset, size) + np.arange(size.sum())
        names, other = np.unique(member[source], return_inverse=True)
        shared = np.minimum(np.repeat(rows.data[entries], size), value[source])
        key = other.ravel() + np.repeat(row * len(names), size)
        sums = np.bincount(key, weights=shared, minlength=(stop - start) * len(names))
        hit = np.flatnonzero(sums)
        line, name = np.divmod(hit, max(len(names), 1))
        upper = names[name] > line + start
        left, right = order[line[upper] + start], order[names[name[upper]]]
        return stop, close(left, right, sums[hit[upper]])

    yield from ordered_map(add_up, deal(equal_work(work, _BLOCK_ENTRIES), processes))


def _symmetric(
    left: np.ndarray, right: np.ndarray, value: np.ndarray, count: int, max_distance: float
) -> sparse.csr_matrix:
    """Both triangles and the diagonal; zeros are kept as stored entries."""
    diagonal = np.arange(count if max_distance > 0 else 0, dtype=np.int32)
    matrix = sparse.coo_matrix(
        (
            np.concatenate([value, value, np.zeros(len(diagonal), dtype=np.float32)]),
            (
                np.concatenate([left, right, diagonal]),
                np.concatenate([right, left, diagonal]),
            ),
        ),
        shape=(count, count),
    ).tocsr()
    matrix.sort_indices()
    return matrix
