# SPDX-License-Identifier: Apache-2.0
"""Exact order of candidates whose float32 inner products are too close to be trusted."""

from __future__ import annotations

import numpy as np

from ppcls_ise.clustering.parallel import Progress, map_rows, spans
from ppcls_ise.clustering.row_set import RowSet, inner_products
from ppcls_ise.errors import InexactSearchError

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
    row_set: RowSet,
    indices: np.ndarray,
    values: np.ndarray,
    k: int,
    *,
    first: int = 0,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort candidates by descending inner product, ties by ascending index, and keep ``k``.

    The result equals the order by float64 inner products, and is the same whatever the float32
    products ``values`` were rounded to. Only entries within float32 rounding of a neighbor in the
    list are computed again to be ordered, and only rows whose candidates may miss a tied entry are
    searched again as a whole (in float64).

    Args:
        row_set: the M rows.
        indices: [m, width] int32 from :func:`top_candidates`, -1 for empty places.
        values: [m, width] float32.
        k: entries to keep, k <= width.
        first: they are the lists of the m rows from this one on.
        progress: called as progress(stage, done, total) with rows, stage "order" or "ties".

    Returns:
        indices [m, k] int64, values [m, k] float32 (those of :func:`inner_products`, lowered where
        rounding would make them ascend) and tie groups [m, k] int32 (equal numbers = tied
        entries), each row in order.

    Raises:
        InexactSearchError: (a ValueError) a value is not the float32 product of its rows (TF32 or
            half precision).
    """
    count, width = indices.shape
    out_indices = np.empty((count, k), dtype=np.int64)
    out_values = np.empty((count, k), dtype=np.float32)
    out_groups = np.empty((count, k), dtype=np.int32)
    # Rows that share neighbors follow each other, so that these are still in the caches.
    visit = np.argsort(indices.min(axis=1), kind="stable")

    def order(span: tuple[int, int]) -> np.ndarray:
        place = visit[slice(*span)]
        index, value, run, unsure = _order_block(
            row_set, place + first, indices[place], values[place], k
        )
        out_indices[place], out_values[place], out_groups[place] = index, value, run
        return place[unsure]

    step = max(1, _ROW_CHUNK_VALUES // (32 * width))
    unsure = np.concatenate([visit[:0], *map_rows(order, count, step, "order", progress)])

    def search_again(span: tuple[int, int]) -> None:
        place = unsure[slice(*span)]
        index, value, run = _search_rows(row_set, place + first, k)
        out_indices[place], out_values[place], out_groups[place] = index, value, run

    step = max(1, _ROW_CHUNK_VALUES // len(row_set))
    list(map_rows(search_again, len(unsure), step, "ties", progress))
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
    index, exact, run = (np.take_along_axis(part, order, axis=1) for part in (index, exact, run))
    value = _values(row_set, rows, index)
    with np.errstate(invalid="ignore"):  # -Inf - -Inf in empty places
        wrong = (np.abs(value - exact) > 2 * scale * largest) & ~unsure[:, None]
    if wrong.any():
        line, column = np.argwhere(wrong)[0]
        raise InexactSearchError(
            f"the search backend returned {exact[line, column]:.9g} as the inner product of two "
            f"rows, but float32 gives {value[line, column]:.9g}: it multiplies in reduced "
            "precision (TF32 or half), so its lists are not exact. Set NVIDIA_TF32_OVERRIDE=0, or "
            "choose another Clustering.backend"
        )
    return index, value, run, unsure


def _values(row_set: RowSet, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Inner products of rows [R] with their neighbors [R, k], -Inf in empty places; [R, k]."""
    line, column = np.nonzero(index >= 0)
    value = np.full(index.shape, -np.inf, dtype=np.float32)
    left, right = rows[line], index[line, column]
    if row_set.rows is not None:
        left, right = row_set.rows[left], row_set.rows[right]
    value[line, column] = inner_products(row_set.features, left, right)
    return np.minimum.accumulate(value, axis=1)


def _search_rows(
    row_set: RowSet, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact search of single rows in float64: O(M·D) per row, for long runs of ties only."""
    count = len(row_set)
    indices = np.full((len(rows), k), -1, dtype=np.int64)
    groups = np.full((len(rows), k), count, dtype=np.int64)
    unit = 2 * _unit_error(row_set, _UNIT_FLOAT64) * row_set.norms.max(initial=0.0)
    column_step = max(1, _PAIR_CHUNK_VALUES // max(row_set.dim, 1))
    left = row_set.take(rows).astype(np.float64)
    scores = np.empty((len(rows), count), dtype=np.float64)
    for start, stop in spans(count, column_step):
        np.matmul(left, row_set.slice(start, stop).T.astype(np.float64), out=scores[:, start:stop])
    if row_set.groups is not None:
        scores[row_set.groups[rows][:, None] == row_set.groups[None, :]] = -np.inf
    bound = np.partition(scores, count - k, axis=1)[:, count - k]
    for line, (row, score) in enumerate(zip(rows, scores, strict=True)):
        tolerance = unit * row_set.norms[row]
        found = np.flatnonzero((score >= bound[line] - tolerance) & np.isfinite(score))
        found = found[np.argsort(-score[found], kind="stable")]
        run = _tie_groups(score[found][None], np.array([[tolerance]]))[0]
        order = np.lexsort((found, run))[:k]
        indices[line, : len(order)] = found[order]
        groups[line, : len(order)] = run[order]
    return indices, _values(row_set, rows, indices), groups
