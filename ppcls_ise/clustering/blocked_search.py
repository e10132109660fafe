# SPDX-License-Identifier: Apache-2.0
"""Largest inner products per row by blocked matrix products over the upper triangle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppcls_ise.clustering.row_set import RowSet

Progress = Callable[[str, int, int], None]
_BLOCK_ROWS = 2048
# Rows partitioned at once: the index array of a whole block would be twice as large as the block.
_DENSE_ROWS = 256


class _RunningTop:
    """The ``width`` largest values seen so far per row, with a threshold that rejects the rest."""

    def __init__(self, count: int, width: int) -> None:
        self.width = width
        self.values = np.full((count, width), -np.inf, dtype=np.float32)
        self.indices = np.full((count, width), -1, dtype=np.int32)
        self.worst = np.full(count, -np.inf, dtype=np.float32)

    def update(self, start: int, first_column: int, scores: np.ndarray) -> None:
        """Offer ``scores`` [R, C]: rows start.., columns first_column.. ."""
        rows, columns = scores.shape
        worst = self.worst[start : start + rows]
        passing = scores > worst[:, None]
        if np.count_nonzero(passing) > rows * self.width:
            self._update_dense(start, first_column, scores)
            return
        # A transposed block is scanned in its memory order, then grouped by row.
        if scores.flags.c_contiguous:
            row, column = np.divmod(np.flatnonzero(passing), columns)
        else:
            column, row = np.divmod(np.flatnonzero(passing.T), rows)
            order = np.argsort(row.astype(np.uint16), kind="stable")
            row, column = row[order], column[order]
        if row.size:
            self._merge(start, row, column + first_column, scores[row, column])

    def _update_dense(self, start: int, first_column: int, scores: np.ndarray) -> None:
        rows, columns = scores.shape
        for first in range(0, rows, _DENSE_ROWS):
            part = scores[first : first + _DENSE_ROWS]
            if columns > self.width:
                chosen = np.argpartition(part, columns - self.width, axis=1)[:, -self.width :]
                values = np.take_along_axis(part, chosen, axis=1)
            else:
                chosen, values = np.broadcast_to(np.arange(columns), part.shape), part
            place = slice(start + first, start + first + len(part))
            self._keep(place, chosen + first_column, values)

    def _merge(self, start: int, row: np.ndarray, column: np.ndarray, values: np.ndarray) -> None:
        """Merge a list of (row, column, value) sorted by row."""
        hit, begin, count = np.unique(row, return_index=True, return_counts=True)
        slot = np.arange(len(row)) - np.repeat(begin, count)
        line = np.repeat(np.arange(len(hit)), count)
        new_values = np.full((len(hit), int(count.max())), -np.inf, dtype=np.float32)
        new_columns = np.full(new_values.shape, -1, dtype=np.int32)
        new_values[line, slot] = values
        new_columns[line, slot] = column
        self._keep(hit + start, new_columns, new_values)

    def _keep(self, rows: slice | np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        all_values = np.concatenate([self.values[rows], values], axis=1)
        all_columns = np.concatenate([self.indices[rows], columns], axis=1, dtype=np.int32)
        extra = all_values.shape[1] - self.width
        if extra:
            best = np.argpartition(all_values, extra, axis=1)[:, extra:]
            all_values = np.take_along_axis(all_values, best, axis=1)
            all_columns = np.take_along_axis(all_columns, best, axis=1)
        self.values[rows] = all_values
        self.indices[rows] = all_columns
        self.worst[rows] = all_values.min(axis=1)


def top_candidates(
    row_set: RowSet,
    width: int,
    *,
    lowest: np.ndarray | None = None,
    progress: Progress | None = None,
    block_rows: int = _BLOCK_ROWS,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``width`` largest inner products of every row with all rows, in float32.

    Every off-diagonal block product serves both its rows and its columns, so M²·D/2 products are
    computed. Values that are not returned are at most the smallest returned one of their row.

    Args:
        row_set: M rows; with ``groups``, pairs of one group are left out.
        width: number of candidates, 1 <= width <= M.
        lowest: optional [M] float32, receives the smallest inner product of each row.
        progress: called as progress("neighbors", done, total) after each block product.
        block_rows: rows per block, at most 65,536; a block product takes 4·block_rows² bytes.

    Returns:
        indices [M, width] int32 (-1 where there are fewer allowed rows) and values [M, width]
        float32 (-Inf there), in no particular order.
    """
    count = len(row_set)
    starts = range(0, count, block_rows)
    # Diagonal blocks first: every row gets a threshold before the bulk of the products.
    pairs = [(a, a) for a in starts] + [(a, b) for a in starts for b in starts if b > a]
    top = _RunningTop(count, width)
    groups = row_set.groups
    if lowest is not None:
        lowest[:] = np.inf
    left_start, left = -1, np.empty((0, 0), dtype=np.float32)
    buffer = np.empty(min(block_rows, count) ** 2, dtype=np.float32)
    for done, (a, b) in enumerate(pairs, 1):
        a_stop, b_stop = min(a + block_rows, count), min(b + block_rows, count)
        if a != left_start:
            left_start, left = a, row_set.slice(a, a_stop)
        scores = buffer[: (a_stop - a) * (b_stop - b)].reshape(a_stop - a, b_stop - b)
        np.matmul(left, (left if a == b else row_set.slice(b, b_stop)).T, out=scores)
        if lowest is not None:
            np.minimum(lowest[a:a_stop], scores.min(axis=1), out=lowest[a:a_stop])
            np.minimum(lowest[b:b_stop], scores.min(axis=0), out=lowest[b:b_stop])
        if groups is not None:
            scores[groups[a:a_stop, None] == groups[None, b:b_stop]] = -np.inf
        top.update(a, b, scores)
        if b != a:
            top.update(b, a, scores.T)
        if progress is not None:
            progress("neighbors", done, len(pairs))
    return top.indices, top.values
