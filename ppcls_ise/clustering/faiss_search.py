# SPDX-License-Identifier: Apache-2.0
"""Candidates from faiss: exact on the processor or a GPU, or approximate by an HNSW graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ppcls_ise.clustering.parallel import Progress, spans
from ppcls_ise.clustering.row_set import RowSet

try:
    import faiss
except ImportError:
    faiss = None

_QUERY_ROWS = 8192
_LINKS = 32
_EF_CONSTRUCTION = 80
_LEAST_EF = 128
# The longest list that faiss finds on a GPU.
_GPU_WIDTH = 2048


def installed() -> bool:
    """Whether faiss can be imported."""
    return faiss is not None


def gpu_count() -> int:
    """GPUs that faiss can use."""
    return faiss.get_num_gpus() if faiss is not None and hasattr(faiss, "GpuIndexFlatIP") else 0


def top_candidates(
    row_set: RowSet, width: int, *, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """See :class:`ppcls_ise.clustering.neighbors.Backend`; M²·D products."""

    def prepare(base: np.ndarray) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        return lambda queries, k: faiss.knn(queries, base, k, metric=faiss.METRIC_INNER_PRODUCT)

    return _search(row_set, width, prepare, progress)


def gpu_top_candidates(
    row_set: RowSet, width: int, *, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """See :class:`ppcls_ise.clustering.neighbors.Backend`; the first GPU holds all rows."""
    if width > _GPU_WIDTH:
        raise ValueError(
            f"faiss finds at most {_GPU_WIDTH} neighbors on a GPU, {width} are needed: lower "
            "Clustering.k1 or set Clustering.backend to blocked"
        )
    resources = faiss.StandardGpuResources()

    def prepare(base: np.ndarray) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        index = faiss.GpuIndexFlatIP(resources, base.shape[1])
        index.add(base)
        return index.search

    return _search(row_set, width, prepare, progress)


def approximate_candidates(
    row_set: RowSet, width: int, *, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Most of the largest products, from a graph of near rows (HNSW); O(M·log M·D).

    faiss builds the graph by several threads that race, so runs differ slightly.
    """
    count = len(row_set)

    def prepare(base: np.ndarray) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        index = faiss.IndexHNSWFlat(base.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _EF_CONSTRUCTION
        index.hnsw.efSearch = max(_LEAST_EF, 2 * width)
        for start, stop in spans(len(base), _QUERY_ROWS):
            index.add(base[start:stop])
            if progress is not None:
                progress("index", stop, count)
        return index.search

    return _search(row_set, width, prepare, progress)


def _search(
    row_set: RowSet,
    width: int,
    prepare: Callable[[np.ndarray], Callable[..., tuple[np.ndarray, np.ndarray]]],
    progress: Progress | None,
) -> tuple[np.ndarray, np.ndarray]:
    count = len(row_set)
    indices = np.full((count, width), -1, dtype=np.int32)
    values = np.full((count, width), -np.inf, dtype=np.float32)
    done = 0
    for rows, others in _parts(row_set):
        find = prepare(row_set.slice(0, count) if others is None else row_set.take(others))
        most = min(width, count if others is None else len(others))
        for start, stop in spans(len(rows), _QUERY_ROWS if most else len(rows)):
            place = rows[start:stop]
            if most:
                found_values, found = find(row_set.take(place), most)
                names: Any = found if others is None else np.where(found < 0, -1, others[found])
                indices[place, :most] = names
                values[place, :most] = np.where(found < 0, -np.inf, found_values)
            done += len(place)
            if progress is not None:
                progress("neighbors", done, count)
    return indices, values


def _parts(row_set: RowSet) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Rows that search the same others (None = all rows)."""
    if row_set.groups is None:
        yield np.arange(len(row_set)), None
        return
    for group in np.unique(row_set.groups):
        own = row_set.groups == group
        yield np.flatnonzero(own), np.flatnonzero(~own)
