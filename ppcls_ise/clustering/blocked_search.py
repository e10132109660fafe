# SPDX-License-Identifier: Apache-2.0
"""Largest inner products per row by blocked matrix products over the upper triangle."""

from __future__ import annotations

import threading

import numpy as np

from ppcls_ise.clustering.parallel import Progress, ordered_map, spans
from ppcls_ise.clustering.row_set import RowSet
from ppcls_ise.clustering.running_top import RunningTop

_BLOCK_ROWS = 1024
# Rows compared at once: their scores are still in the caches for the second comparison.
_SCAN_ROWS = 256


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
    computed, on all cores. Values that are not returned are at most the smallest returned one of
    their row; which of several equal ones are returned may differ between runs.

    Args:
        row_set: M rows; with ``groups``, pairs of one group are left out.
        width: number of candidates, 1 <= width <= M.
        lowest: optional [M] float32, receives the smallest inner product of each row.
        progress: called as progress("neighbors", done, total) after each block product.
        block_rows: rows per block, at most 65,536; a core's block takes 4·block_rows² bytes.

    Returns:
        indices [M, width] int32 (-1 where there are fewer allowed rows) and values [M, width]
        float32 (-Inf there), in no particular order.
    """
    count = len(row_set)
    blocks = list(spans(count, block_rows))
    # Diagonal blocks first: every row gets a threshold before the bulk of the products.
    pairs = [(a, a) for a in range(len(blocks))]
    pairs += [(a, b) for a in range(len(blocks)) for b in range(a + 1, len(blocks))]
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

    for done, _ in enumerate(ordered_map(multiply, pairs), 1):
        if progress is not None:
            progress("neighbors", done, len(pairs))
    return top.finish()


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
