# SPDX-License-Identifier: Apache-2.0
"""Jaccard distances of sparse membership rows: only pairs that share a column are touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.candidate_pairs import candidate_pairs
from ppcls_ise.clustering.membership import rows_by_first_column
from ppcls_ise.clustering.parallel import Progress, equal_work, ordered_map

# Entries of the inverted lists handled at once: small enough for the caches.
_BLOCK_ENTRIES = 1 << 17
_PAIR_CHUNK = 2048
# Bounds on the overlap from here on leave few pairs, which are cheaper to find first.
_SELECTIVE_OVERLAP = 0.25

# Rows, columns and distances of pairs, and what makes them from rows, columns and overlaps.
Found = tuple[np.ndarray, np.ndarray, np.ndarray]
Close = Callable[[np.ndarray, np.ndarray, np.ndarray], Found]


def jaccard_distances(
    memberships: sparse.csr_matrix, max_distance: float, *, progress: Progress | None = None
) -> sparse.csr_matrix:
    """J_ij = 1 - S_ij / (2 - S_ij), S_ij = sum_q min(V_iq, V_jq), where J_ij < max_distance.

    O(sum over columns of (column size)²) time; memory O(entries of V and of the result).

    Args:
        memberships: V [N, N] float32, rows sorted by column.
        max_distance: bound, exclusive, compared with J as float32.
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
        keep = distance < max_distance
        return row[keep].astype(np.int32), column[keep].astype(np.int32), distance[keep]

    found = []
    for done, pairs in search(memberships, least_overlap, close):
        found.append(pairs)
        if progress is not None:
            progress("jaccard", done, count)
    return _symmetric(found, count, max_distance)


def _selected_pairs(
    memberships: sparse.csr_matrix, least_overlap: float, close: Close
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

    return candidate_pairs(memberships, least_overlap, compare)


def _all_pairs(
    memberships: sparse.csr_matrix, _: float, close: Close
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

    yield from ordered_map(add_up, equal_work(work, _BLOCK_ENTRIES))


def _symmetric(found: list[Found], count: int, max_distance: float) -> sparse.csr_matrix:
    """Both triangles and the diagonal; zeros are kept as stored entries."""
    diagonal = np.arange(count if max_distance > 0 else 0, dtype=np.int32)
    left = np.concatenate([part[0] for part in found] + [diagonal[:0]])
    right = np.concatenate([part[1] for part in found] + [diagonal[:0]])
    value = np.concatenate([part[2] for part in found] + [np.zeros(0, dtype=np.float32)])
    found.clear()
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
