# SPDX-License-Identifier: Apache-2.0
"""Jaccard distances of sparse membership rows: only pairs that share a column are touched."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.blocked_search import Progress

# Entries of the inverted lists handled at once: small enough for the caches.
_BLOCK_ENTRIES = 1 << 17


def jaccard_distances(
    memberships: sparse.csr_matrix, max_distance: float, *, progress: Progress | None = None
) -> sparse.csr_matrix:
    """J_ij = 1 - S_ij / (2 - S_ij), S_ij = sum_q min(V_iq, V_jq), where J_ij < max_distance.

    Inverted lists: column q of V names the rows that share q. Rows are visited in the order of
    their first column, so that a block of rows touches few others and its sums fit a small table.
    O(sum over columns of (column size)²) time; memory O(entries of the result).

    Args:
        memberships: V [N, N] float32, rows sorted by column.
        max_distance: bound, exclusive.
        progress: called as progress("jaccard", done, total) with rows.

    Returns:
        [N, N] float32, symmetric, diagonal stored as 0.0, rows sorted by column.
    """
    count = memberships.shape[0]
    order = _visiting_order(memberships)
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
    touched = np.zeros(count, dtype=bool)
    local = np.empty(count, dtype=np.int64)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    start = 0
    while start < count:
        stop = int(np.searchsorted(work, work[start] + _BLOCK_ENTRIES, side="right")) - 1
        stop = min(max(stop, start + 1), count)
        entries = slice(rows.indptr[start], rows.indptr[stop])
        size = length[entries]
        row = np.repeat(np.arange(stop - start), np.diff(rows.indptr[start : stop + 1]))
        offset = place[entries] - (np.cumsum(size) - size)
        source = np.repeat(offset, size) + np.arange(size.sum())
        other = member[source]
        touched[other] = True
        names = np.flatnonzero(touched)
        touched[names] = False
        local[names] = np.arange(len(names))
        shared = np.minimum(np.repeat(rows.data[entries], size), value[source])
        key = local[other] + np.repeat(row * len(names), size)
        sums = np.bincount(key, weights=shared, minlength=(stop - start) * len(names))
        hit = np.flatnonzero(sums)
        distance = np.maximum(1.0 - sums[hit] / (2.0 - sums[hit]), 0.0).astype(np.float32)
        keep = distance < max_distance
        line, name = np.divmod(hit[keep], max(len(names), 1))
        upper = names[name] > line + start
        found.append(
            (
                order[line[upper] + start].astype(np.int32),
                order[names[name[upper]]].astype(np.int32),
                distance[keep][upper],
            )
        )
        start = stop
        if progress is not None:
            progress("jaccard", start, count)
    return _symmetric(found, count, max_distance)


def _visiting_order(memberships: sparse.csr_matrix) -> np.ndarray:
    """Rows by their first column: neighbors usually share it (a min-hash of the row's support)."""
    count = memberships.shape[0]
    first = np.full(count, count, dtype=np.int64)
    filled = np.diff(memberships.indptr) > 0
    first[filled] = memberships.indices[memberships.indptr[:-1][filled]]
    return np.argsort(first, kind="stable")


def _symmetric(
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int, max_distance: float
) -> sparse.csr_matrix:
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
