# SPDX-License-Identifier: Apache-2.0
"""The largest values seen so far per row, with a threshold that rejects nearly all others."""

from __future__ import annotations

import numpy as np

# Rows partitioned at once: the index array of a whole block would be twice as large as the block.
_DENSE_ROWS = 256
_FINISH_ROWS = 8192


class RunningTop:
    """Collects the ``width`` largest of all values offered for each of ``count`` rows.

    A row has half as many places again; it is cut back to the largest ones when they are full,
    which raises its threshold. Takes 12·count·width bytes.

    Attributes:
        worst: [count] float32, values up to it need not be offered any more.
    """

    def __init__(self, count: int, width: int) -> None:
        self.width = width
        self.slots = width + max(width // 2, 8)
        self.values = np.full((count, self.slots), -np.inf, dtype=np.float32)
        self.indices = np.full((count, self.slots), -1, dtype=np.int32)
        self.filled = np.zeros(count, dtype=np.int32)
        self.worst = np.full(count, -np.inf, dtype=np.float32)

    def offer(self, row: np.ndarray, column: np.ndarray, values: np.ndarray) -> None:
        """Values [P] at (row, column), sorted by row; a pair may be offered only once."""
        while row.size:
            first = int(row[0])
            local = row - first
            counts = np.bincount(local)
            begin = np.cumsum(counts) - counts
            rows = slice(first, first + len(counts))
            slot = (self.filled[rows] - begin)[local] + np.arange(len(row))
            fits = slot < self.slots
            place = row[fits] * self.slots + slot[fits]
            self.values.reshape(-1)[place] = values[fits]
            self.indices.reshape(-1)[place] = column[fits]
            total = self.filled[rows] + counts
            self.filled[rows] = np.minimum(total, self.slots)
            full = np.flatnonzero(total > self.slots)
            if not full.size:
                return
            full += first
            self._keep_largest(full, self.indices[full], self.values[full])
            left = ~fits & (values > self.worst[row])
            row, column, values = row[left], column[left], values[left]

    def offer_all(self, first_row: int, first_column: int, scores: np.ndarray) -> None:
        """A whole block ``scores`` [R, C]: rows first_row.., columns first_column.. ."""
        rows, columns = scores.shape
        for first in range(0, rows, _DENSE_ROWS):
            part = scores[first : first + _DENSE_ROWS]
            if columns > self.width:
                chosen = np.argpartition(part, columns - self.width, axis=1)[:, -self.width :]
                values = np.take_along_axis(part, chosen, axis=1)
            else:
                chosen, values = np.broadcast_to(np.arange(columns), part.shape), part
            place = slice(first_row + first, first_row + first + len(part))
            self._empty_behind(place)
            values = np.concatenate([self.values[place], values], axis=1)
            chosen = np.concatenate(
                [self.indices[place], chosen + first_column], axis=1, dtype=np.int32
            )
            self._keep_largest(place, chosen, values)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices [count, width] int32 (-1 = empty) and values (-Inf there), in no order."""
        for start in range(0, len(self.worst), _FINISH_ROWS):
            place = slice(start, start + _FINISH_ROWS)
            self._empty_behind(place)
            self._keep_largest(place, self.indices[place], self.values[place])
            self.indices[place][np.isneginf(self.values[place])] = -1
        return self.indices[:, : self.width], self.values[:, : self.width]

    def _empty_behind(self, rows: slice) -> None:
        self.values[rows][np.arange(self.slots) >= self.filled[rows, None]] = -np.inf

    def _keep_largest(
        self, rows: slice | np.ndarray, indices: np.ndarray, values: np.ndarray
    ) -> None:
        extra = values.shape[1] - self.width
        best = np.argpartition(values, extra, axis=1)[:, extra:]
        values = np.take_along_axis(values, best, axis=1)
        self.values[rows, : self.width] = values
        self.indices[rows, : self.width] = np.take_along_axis(indices, best, axis=1)
        self.filled[rows] = self.width
        self.worst[rows] = values.min(axis=1)
