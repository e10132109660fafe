# SPDX-License-Identifier: Apache-2.0
"""Largest inner products per row by blocked matrix products over the upper triangle."""

from __future__ import annotations

import threading
from itertools import combinations

import numpy as np

from ppcls_ise.clustering.parallel import Progress, ordered_map, spans
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, deal, own_rows, rows_of
from ppcls_ise.clustering.row_set import RowSet

# Rows partitioned at once: the index array of a whole block would be twice as large as the block.
_DENSE_ROWS = 256
_FINISH_ROWS = 8192
_BLOCK_ROWS = 1024
# Rows compared at once: their scores are still in the caches for the second comparison.
_SCAN_ROWS = 256
# Rows whose lists the processes exchange at once, all of them together.
_EXCHANGED_ROWS = 1 << 16


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
        # A threshold of another process may be above.
        self.worst[rows] = np.maximum(self.worst[rows], values.min(axis=1))


def top_candidates(
    row_set: RowSet,
    width: int,
    *,
    processes: Processes = ONE_PROCESS,
    lowest: np.ndarray | None = None,
    progress: Progress | None = None,
    block_rows: int = _BLOCK_ROWS,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``width`` largest inner products of every row with all rows, in float32.

    Every off-diagonal block product serves both its rows and its columns, so M²·D/2 products are
    computed, on all cores. Values that are not returned are at most the smallest returned one of
    their row; which of several equal ones are returned may differ between runs.

    Several processes deal the block products among themselves, in turn. Each begins with the
    thresholds that the diagonal blocks of all gave, keeps lists of its own for all rows (12·M·width
    bytes), and in the end each merges those of its own rows.

    Args:
        row_set: M rows; with ``groups``, pairs of one group are left out.
        width: number of candidates, 1 <= width <= M.
        processes: who shares the work.
        lowest: optional [M] float32, receives the smallest inner product of each row.
        progress: called as progress("neighbors", done, total) after each block product, of this
            process.
        block_rows: rows per block, at most 65,536; a core's block takes 4·block_rows² bytes.

    Returns:
        indices [m, width] int32 (-1 where there are fewer allowed rows) and values [m, width]
        float32 (-Inf there), in no particular order, of the m rows of this process (all M in one).
    """
    count = len(row_set)
    blocks = list(spans(count, block_rows))
    diagonal = list(deal(((a, a) for a in range(len(blocks))), processes))
    others = list(deal(combinations(range(len(blocks)), 2), processes))
    top = RunningTop(count, width)
    locks = [threading.Lock() for _ in blocks]
    own = threading.local()
    if lowest is not None:
        lowest[:] = np.inf

    def multiply(pair: tuple[int, int]) -> None:
        """A stale threshold only lets more values through, so it is read without a lock."""
        (a, a_stop), (b, b_stop) = blocks[pair[0]], blocks[pair[1]]
        if not hasattr(own, "buffer"):
            own.buffer = np.empty(min(block_rows, count) ** 2, dtype=np.float32)
        scores = own.buffer[: (a_stop - a) * (b_stop - b)].reshape(a_stop - a, b_stop - b)
        np.matmul(row_set.slice(a, a_stop), row_set.slice(b, b_stop).T, out=scores)
        if lowest is not None:
            for axis, place, start, stop in ((1, pair[0], a, a_stop), (0, pair[1], b, b_stop)):
                least = scores.min(axis=axis)
                with locks[place]:
                    np.minimum(lowest[start:stop], least, out=lowest[start:stop])
        if row_set.groups is not None:
            same = row_set.groups[a:a_stop, None] == row_set.groups[None, b:b_stop]
            np.copyto(scores, -np.inf, where=same)
        found = _above(scores, top.worst[a:a_stop, None], width * (a_stop - a))
        with locks[pair[0]]:
            if found is None:
                top.offer_all(a, b, scores)
            else:
                row, column = np.divmod(found, b_stop - b)
                top.offer(row + a, column + b, scores.reshape(-1)[found])
        if a == b:
            return
        found = _above(scores, top.worst[None, b:b_stop], width * (b_stop - b))
        with locks[pair[1]]:
            if found is None:
                top.offer_all(b, a, scores.T)
            else:
                row, column = np.divmod(found, b_stop - b)
                order = np.argsort(column.astype(np.uint16), kind="stable")
                top.offer(column[order] + b, row[order] + a, scores.reshape(-1)[found[order]])

    # Diagonal blocks first: every row gets a threshold before the bulk of the products.
    done = 0
    for pairs in (diagonal, others):
        for _ in ordered_map(multiply, pairs):
            done += 1
            if progress is not None:
                progress("neighbors", done, len(diagonal) + len(others))
        if pairs is diagonal and processes.size > 1:
            top.worst = np.maximum.reduce(processes.gather(top.worst))
    if lowest is not None:
        lowest[:] = np.minimum.reduce(processes.gather(lowest))
    return merged_parts(*top.finish(), processes)


def merged_parts(
    indices: np.ndarray, values: np.ndarray, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """The largest values of all processes together, for the rows of this one.

    Args:
        indices: [M, width] int32, -1 = empty; no pair may come from two processes.
        values: [M, width] float32, -Inf there.
        processes: each with such lists of its own.

    Returns:
        indices [m, width] and values [m, width] of the m rows of this process, in no order.
    """
    if processes.size == 1:
        return indices, values
    count, width = indices.shape
    begin, end = own_rows(count, processes)
    kept_indices = np.empty((end - begin, width), dtype=np.int32)
    kept_values = np.empty((end - begin, width), dtype=np.float32)
    for rank in range(processes.size):
        first, last = rows_of(rank, count, processes)
        for start, stop in spans(last - first, max(_EXCHANGED_ROWS // processes.size, 1)):
            rows = slice(first + start, first + stop)
            found = processes.gather(np.ascontiguousarray(indices[rows]))
            scores = processes.gather(np.ascontiguousarray(values[rows]))
            if rank == processes.rank:
                every, score = np.concatenate(found, axis=1), np.concatenate(scores, axis=1)
                extra = score.shape[1] - width
                best = np.argpartition(score, extra, axis=1)[:, extra:]
                kept_indices[start:stop] = np.take_along_axis(every, best, axis=1)
                kept_values[start:stop] = np.take_along_axis(score, best, axis=1)
    return kept_indices, kept_values


def _above(scores: np.ndarray, threshold: np.ndarray, most: int) -> np.ndarray | None:
    """Flat positions of scores [R, C] above ``threshold`` ([R, 1] or [1, C]); None if there are
    more than ``most``."""
    rows, columns = scores.shape
    passing = np.empty((min(rows, _SCAN_ROWS), columns), dtype=bool)
    found: list[np.ndarray] = []
    for start, stop in spans(rows, _SCAN_ROWS):
        part = passing[: stop - start]
        bound = threshold if len(threshold) == 1 else threshold[start:stop]
        np.greater(scores[start:stop], bound, out=part)
        most -= np.count_nonzero(part)
        if most < 0:
            return None
        found.append(np.flatnonzero(part) + start * columns)
    return np.concatenate(found)
