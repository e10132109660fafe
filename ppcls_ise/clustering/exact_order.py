# SPDX-License-Identifier: Apache-2.0
"""Exact order of candidates whose float32 inner products are too close to be trusted."""

from __future__ import annotations

import numpy as np

from ppcls_ise.clustering.row_set import RowSet

# Rounding errors of a sum of D products behave like a random walk: |error| stays below
# 4·sqrt(D)·u·|x|·|y| (Higham and Mary 2019, "A new approach to probabilistic rounding error
# analysis"), u = 2^-24 for float32 and 2^-53 for float64.
_SAFETY = 4.0
_UNIT_FLOAT32 = 2.0**-24
_UNIT_FLOAT64 = 2.0**-53
_PAIR_CHUNK_VALUES = 1 << 20
_ROW_CHUNK_VALUES = 1 << 22


def _unit_error(row_set: RowSet, unit: float) -> float:
    return _SAFETY * float(np.sqrt(max(row_set.dim, 1))) * unit


def pair_products(row_set: RowSet, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Inner products in float64 of the pairs (left[p], right[p]), [P] float64.

    Every pair is summed in the same order whatever its place, so equal rows give equal bits.
    """
    products = np.empty(len(left), dtype=np.float64)
    step = max(1, _PAIR_CHUNK_VALUES // max(row_set.dim, 1))
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        terms = np.multiply(row_set.take(left[part]), row_set.take(right[part]), dtype=np.float64)
        products[part] = terms.sum(axis=1)
    return products


def _tie_groups(values: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Number runs of equal values in rows sorted descending; tolerance is [R, 1]."""
    run = np.zeros(values.shape, dtype=np.int64)
    with np.errstate(invalid="ignore"):  # -Inf - -Inf among the empty places at the end
        np.cumsum(~(values[:, :-1] - values[:, 1:] <= tolerance), axis=1, out=run[:, 1:])
    return run


def order_candidates(
    row_set: RowSet, indices: np.ndarray, values: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort candidates by descending inner product, ties by ascending index, and keep ``k``.

    The result equals the order by float64 inner products. Only entries within float32 rounding of
    a neighbor in the list are computed again, and only rows whose candidates may miss a tied
    entry are searched again as a whole (in float64).

    Args:
        row_set: the M rows.
        indices: [M, width] int32 from :func:`top_candidates`, -1 for empty places.
        values: [M, width] float32.
        k: entries to keep, k <= width.

    Returns:
        indices [M, k] int64, values [M, k] float32 and tie groups [M, k] int32 (equal numbers =
        tied entries), each row in order.
    """
    count, width = indices.shape
    out_indices = np.empty((count, k), dtype=np.int64)
    out_values = np.empty((count, k), dtype=np.float32)
    out_groups = np.empty((count, k), dtype=np.int32)
    step = max(1, _ROW_CHUNK_VALUES // (32 * width))
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        index, value, run, unsure = _order_block(row_set, rows, indices[rows], values[rows], k)
        out_indices[rows], out_values[rows], out_groups[rows] = index, value, run
        if unsure.size:
            index, value, run = _search_rows(row_set, unsure, k)
            out_indices[unsure], out_values[unsure], out_groups[unsure] = index, value, run
    return out_indices, out_values, out_groups


def _order_block(
    row_set: RowSet, rows: np.ndarray, indices: np.ndarray, values: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    norms = row_set.norms
    scale = _unit_error(row_set, _UNIT_FLOAT32) * norms[rows][:, None]
    order = np.argsort(-values, axis=1)
    index = np.take_along_axis(indices, order, axis=1).astype(np.int64)
    coarse = np.take_along_axis(values, order, axis=1)
    exact = coarse.astype(np.float64)
    error = scale * norms[index]
    with np.errstate(invalid="ignore"):
        close = exact[:, :-1] - exact[:, 1:] <= error[:, :-1] + error[:, 1:]
        # Rows left out are at most the last candidate: is that clearly below the k-th?
        margin = exact[:, k - 1] - exact[:, -1]
    largest = norms.max(initial=0.0)
    unsure = (margin <= error[:, k - 1] + scale[:, 0] * largest) & (index[:, -1] >= 0)
    if indices.shape[1] == len(row_set):
        unsure[:] = False
    # Runs of close entries that begin within the first k places are computed again.
    first = np.zeros(index.shape, dtype=bool)
    first[:, 1:] = close
    again = first.copy()
    again[:, :-1] |= close
    place = np.arange(index.shape[1])
    run_start = np.maximum.accumulate(np.where(first, 0, place), axis=1)
    again &= (run_start < k) & (index >= 0) & ~unsure[:, None]
    line, column = np.nonzero(again)
    if line.size:
        exact[line, column] = pair_products(row_set, rows[line], index[line, column])
    order = np.argsort(-exact, axis=1, kind="stable")
    index = np.take_along_axis(index, order, axis=1)
    exact = np.take_along_axis(exact, order, axis=1)
    tolerance = 2 * _unit_error(row_set, _UNIT_FLOAT64) * norms[rows][:, None] * largest
    run = _tie_groups(exact, tolerance)
    key = np.where(index >= 0, run * len(row_set) + index, np.iinfo(np.int64).max)
    order = np.argsort(key, axis=1)[:, :k]
    return (
        np.take_along_axis(index, order, axis=1),
        np.take_along_axis(exact, order, axis=1),
        np.take_along_axis(run, order, axis=1),
        rows[unsure],
    )


def _search_rows(
    row_set: RowSet, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact search of single rows in float64: O(M·D) per row, for long runs of ties only."""
    count = len(row_set)
    out_indices = np.full((len(rows), k), -1, dtype=np.int64)
    out_values = np.full((len(rows), k), -np.inf, dtype=np.float64)
    out_groups = np.full((len(rows), k), count, dtype=np.int64)
    largest = row_set.norms.max(initial=0.0)
    unit = 2 * _unit_error(row_set, _UNIT_FLOAT64) * largest
    step = max(1, _ROW_CHUNK_VALUES // count)
    column_step = max(1, _PAIR_CHUNK_VALUES // max(row_set.dim, 1))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        left = row_set.take(part).astype(np.float64)
        scores = np.empty((len(part), count), dtype=np.float64)
        for column in range(0, count, column_step):
            stop = min(column + column_step, count)
            np.matmul(
                left, row_set.slice(column, stop).T.astype(np.float64), out=scores[:, column:stop]
            )
        if row_set.groups is not None:
            scores[row_set.groups[part][:, None] == row_set.groups[None, :]] = -np.inf
        bound = np.partition(scores, count - k, axis=1)[:, count - k]
        for line, (row, score) in enumerate(zip(part, scores, strict=True), start):
            tolerance = unit * row_set.norms[row]
            found = np.flatnonzero((score >= bound[line - start] - tolerance) & np.isfinite(score))
            found = found[np.argsort(-score[found], kind="stable")]
            run = _tie_groups(score[found][None], np.array([[tolerance]]))[0]
            order = np.lexsort((found, run))[:k]
            size = len(order)
            out_indices[line, :size] = found[order]
            out_values[line, :size] = score[found[order]]
            out_groups[line, :size] = run[order]
    return out_indices, out_values, out_groups
