# SPDX-License-Identifier: Apache-2.0
"""Faiss's HNSW graph for approximate search, and its plain arrays on disk.

Faiss's own file reader trusts what it reads. So a graph is stored as arrays of numbers, and every
number that the search would follow is checked before faiss sees it.
"""

from collections.abc import Mapping

import faiss
import numpy as np

from ppcls_ise.utils.threads import faiss_threads

LINKS = 32
_BUILD_WIDTH = 40
_SEARCH_WIDTH = 256
_MOST_LEVELS = 64
_VECTORS = ("levels", "offsets", "neighbors")
NAMES = (*_VECTORS, "top")


def build_graph(rows: np.ndarray) -> faiss.IndexHNSWFlat:
    """An index over unit rows [N, D] float32; O(N log N D) time, N (4 D + 8 LINKS) bytes."""
    index = _empty(rows.shape[1])
    with faiss_threads():
        index.add(rows)
    return index


def search_graph(
    index: faiss.IndexHNSWFlat, queries: np.ndarray, count: int, alive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Inner products and rows [Q, count] of the nearest rows that are ``alive`` [N] bool.

    Approximate. Where fewer than ``count`` were found, the row is -1.
    """
    options = {"efSearch": max(_SEARCH_WIDTH, 2 * count)}
    if not alive.all():
        options["sel"] = faiss.IDSelectorBitmap(np.packbits(alive, bitorder="little"))
    with faiss_threads():
        return index.search(queries, count, params=faiss.SearchParametersHNSW(**options))


def graph_arrays(index: faiss.IndexHNSWFlat) -> dict[str, np.ndarray]:
    """The graph without its rows: ``levels`` [N], ``offsets`` [N + 1], ``neighbors`` and ``top`` =
    (entry row, highest level), all int64."""
    hnsw = index.hnsw
    arrays = {name: faiss.vector_to_array(getattr(hnsw, name)) for name in _VECTORS}
    arrays["top"] = np.array([hnsw.entry_point, hnsw.max_level])
    return {name: array.astype(np.int64) for name, array in arrays.items()}


def graph_of(rows: np.ndarray, arrays: Mapping[str, np.ndarray]) -> faiss.IndexHNSWFlat:
    """The inverse of `graph_arrays`.

    Raises:
        ValueError: the arrays are no graph over these rows; faiss has not seen them then.
    """
    index = _empty(rows.shape[1])
    arrays = {name: arrays[name] for name in NAMES}
    _check(arrays, len(rows), index)
    faiss.downcast_index(index.storage).add(rows)
    index.ntotal = len(rows)
    hnsw = index.hnsw
    faiss.copy_array_to_vector(arrays["levels"].astype(np.int32), hnsw.levels)
    faiss.copy_array_to_vector(arrays["offsets"].astype(np.uint64), hnsw.offsets)
    faiss.copy_array_to_vector(arrays["neighbors"].astype(np.int32), hnsw.neighbors)
    hnsw.entry_point, hnsw.max_level = (int(value) for value in arrays["top"])
    return index


def _empty(columns: int) -> faiss.IndexHNSWFlat:
    index = faiss.IndexHNSWFlat(columns, LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD_WIDTH
    return index


def _check(arrays: Mapping[str, np.ndarray], count: int, index: faiss.IndexHNSWFlat) -> None:
    if any(array.dtype != np.int64 or array.ndim != 1 for array in arrays.values()):
        raise ValueError("the graph is not made of whole numbers")
    levels, offsets, neighbors, top = (arrays[name] for name in NAMES)
    if levels.shape != (count,) or offsets.shape != (count + 1,) or top.shape != (2,):
        raise ValueError(f"the graph is not one of {count} rows")
    slots = faiss.vector_to_array(index.hnsw.cum_nneighbor_per_level).astype(np.int64)
    highest = min(len(slots) - 1, _MOST_LEVELS)
    if levels.min() < 1 or levels.max() > highest:
        raise ValueError(f"the graph has levels outside 1 .. {highest}")
    expected = np.concatenate([[0], np.cumsum(slots[levels])])
    if not np.array_equal(offsets, expected) or len(neighbors) != expected[-1]:
        raise ValueError("the graph's links do not fit its levels")
    if neighbors.min() < -1 or neighbors.max() >= count:
        raise ValueError("the graph links to rows that do not exist")
    _check_levels(levels, neighbors, slots)
    if not 0 <= top[0] < count or top[1] != levels.max() - 1 or levels[top[0]] != levels.max():
        raise ValueError("the graph's entry is not on its highest level")


def _check_levels(levels: np.ndarray, neighbors: np.ndarray, slots: np.ndarray) -> None:
    """A link of a level leads to a row of that level: its links there are read next."""
    place = np.arange(len(neighbors)) - np.repeat(
        np.cumsum(slots[levels]) - slots[levels], slots[levels]
    )
    level = np.searchsorted(slots, place, side="right")
    linked = neighbors >= 0
    if (levels[neighbors[linked]] < level[linked]).any():
        raise ValueError("the graph links to rows of a lower level")
