# SPDX-License-Identifier: Apache-2.0
"""Candidates from faiss: exact on the processor or a GPU, or approximate by an HNSW graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ppcls_ise.clustering.blocked_search import merged_parts
from ppcls_ise.clustering.parallel import Progress, spans
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, own_rows
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
    row_set: RowSet,
    width: int,
    *,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """See :class:`ppcls_ise.clustering.neighbors.Backend`; M²·D products."""

    def prepare(base: np.ndarray) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        return lambda queries, k: faiss.knn(queries, base, k, metric=faiss.METRIC_INNER_PRODUCT)

    return _search(row_set, width, prepare, progress, own_rows(len(row_set), processes))


def gpu_top_candidates(
    row_set: RowSet,
    width: int,
    *,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """See :class:`ppcls_ise.clustering.neighbors.Backend`; a GPU holds all rows, in turn
    by the rank of the process."""
    if width > _GPU_WIDTH:
        raise ValueError(
            f"faiss finds at most {_GPU_WIDTH} neighbors on a GPU, {width} are needed: lower "
            "Clustering.k1 or set Clustering.backend to blocked"
        )
    resources = faiss.StandardGpuResources()
    options = faiss.GpuIndexFlatConfig()
    options.device = processes.rank % gpu_count()

    def prepare(base: np.ndarray) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        index = faiss.GpuIndexFlatIP(resources, base.shape[1], options)
        index.add(base)
        return index.search

    return _search(row_set, width, prepare, progress, own_rows(len(row_set), processes))


def approximate_candidates(
    row_set: RowSet,
    width: int,
    *,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Most of the largest products, from a graph of near rows (HNSW); O(M·log M·D).

    faiss builds the graph by several threads that race, so runs differ slightly. Of several
    processes each builds a graph of its own rows and searches all rows there, so that the copy of
    the rows that a graph needs is shared out, and they merge what they found; more of them find
    more of the neighbors.
    """
    count = len(row_set)
    first, last = own_rows(count, processes)
    index = faiss.IndexHNSWFlat(row_set.dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _EF_CONSTRUCTION
    index.hnsw.efSearch = max(_LEAST_EF, 2 * width)
    for start, stop in spans(last - first, _QUERY_ROWS):
        index.add(np.ascontiguousarray(row_set.slice(first + start, first + stop)))
        if progress is not None:
            progress("index", stop, last - first)
    indices = np.full((count, width), -1, dtype=np.int32)
    values = np.full((count, width), -np.inf, dtype=np.float32)
    most = min(width, last - first)
    for start, stop in spans(count if most else 0, _QUERY_ROWS):
        found_values, found = index.search(row_set.slice(start, stop), most)
        indices[start:stop, :most] = np.where(found < 0, -1, found + first)
        values[start:stop, :most] = np.where(found < 0, -np.inf, found_values)
        if progress is not None:
            progress("neighbors", stop, count)
    return merged_parts(indices, values, processes)


def _search(
    row_set: RowSet,
    width: int,
    prepare: Callable[[np.ndarray], Callable[..., tuple[np.ndarray, np.ndarray]]],
    progress: Progress | None,
    own: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """The candidates of the rows ``own`` = (start, stop)."""
    count, (begin, end) = len(row_set), own
    indices = np.full((end - begin, width), -1, dtype=np.int32)
    values = np.full((end - begin, width), -np.inf, dtype=np.float32)
    done = 0
    for rows, others in _parts(row_set, own):
        find = prepare(row_set.slice(0, count) if others is None else row_set.take(others))
        most = min(width, count if others is None else len(others))
        for start, stop in spans(len(rows), _QUERY_ROWS if most else len(rows)):
            place = rows[start:stop]
            if most:
                found_values, found = find(row_set.take(place), most)
                names: Any = found if others is None else np.where(found < 0, -1, others[found])
                indices[place - begin, :most] = names
                values[place - begin, :most] = np.where(found < 0, -np.inf, found_values)
            done += len(place)
            if progress is not None:
                progress("neighbors", done, end - begin)
    return indices, values


def _parts(row_set: RowSet, own: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Rows among ``own`` that search the same others (None = all rows)."""
    if row_set.groups is None:
        yield np.arange(*own), None
        return
    for group in np.unique(row_set.groups[slice(*own)]):
        inside = row_set.groups == group
        rows = np.flatnonzero(inside)
        yield rows[(rows >= own[0]) & (rows < own[1])], np.flatnonzero(~inside)
