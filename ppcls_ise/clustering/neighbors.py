# SPDX-License-Identifier: Apache-2.0
"""Exact nearest neighbors by inner product, with ties broken by index."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np

from ppcls_ise.clustering import faiss_search
from ppcls_ise.clustering.blocked_search import top_candidates
from ppcls_ise.clustering.parallel import Progress, spans
from ppcls_ise.clustering.processes import (
    ONE_PROCESS,
    Processes,
    own_rows,
    raise_together,
)
from ppcls_ise.clustering.row_set import RowSet, as_features, duplicate_groups, row_norms
from ppcls_ise.clustering.similarity_order import order_candidates
from ppcls_ise.errors import ConfigError, InexactSearchError

# The values of Clustering.backend; paddle_gpu is `ppcls_ise.engine.gpu_search`.
BACKENDS = ("auto", "blocked", "faiss", "faiss_gpu", "paddle_gpu")
_PAD = 8
_EXPAND_ROWS = 2048
_SAME = 1e-12


class Backend(Protocol):
    """Finds the largest inner products; what it returns is put in exact order afterwards."""

    def __call__(
        self,
        row_set: RowSet,
        width: int,
        *,
        processes: Processes = ONE_PROCESS,
        progress: Progress | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices [m, width] int32 (-1 = empty) and float32 products (-Inf there) of the m rows of
        this process (`own_rows`), all rows being their candidates.

        In any order; products that are missing are at most the smallest one of their row, up to
        float32 rounding. Pairs of one group are left out if the row set has groups.
        """


def search_backend(backend: str | Backend) -> Backend:
    """The backend of that name.

    Args:
        backend: "blocked" (own block products on the processor), "faiss", "faiss_gpu", or "auto":
            faiss on the GPU where it has one, else "blocked", which is faster than faiss on the
            processor. Or a function (for example of :mod:`ppcls_ise.engine.gpu_search`).

    Raises:
        ConfigError: it is not there; names the key and what is.
    """
    if not isinstance(backend, str):
        return backend
    backends: dict[str, Backend] = {"blocked": top_candidates}
    if faiss_search.installed():
        backends["faiss"] = faiss_search.top_candidates
    if faiss_search.gpu_count():
        backends["faiss_gpu"] = faiss_search.gpu_top_candidates
    if backend == "auto":
        return backends.get("faiss_gpu", top_candidates)
    if backend not in backends:
        raise ConfigError(
            f"Clustering.backend={backend} is not available here; there are auto, "
            f"{', '.join(backends)} (faiss needs the package faiss-cpu, faiss_gpu a faiss built "
            "with CUDA and a GPU, paddle_gpu a Global.device other than cpu)"
        )
    return backends[backend]


# Candidates beyond k: near-ties at the k-th place are decided among them.


def k_nearest(
    features: np.ndarray,
    k: int,
    *,
    backend: str | Backend = "auto",
    approximate: bool = False,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` rows with the largest inner product for every row; the row itself is a candidate.

    For unit rows this is the order by Euclidean distance, d² = 2 - 2·<x_i, x_j>. The search is
    exact: the order is that of the float64 inner products of the float32 rows, equal products by
    ascending index, so exact copies and zero rows tie the same way in every list. All backends and
    any number of cores and processes give the same bytes. By default N²·D/2 multiplications in
    float32 on all cores; memory O(N·k) plus about 25 MB per core for block products.

    Args:
        features: [N, D], used as float32; not normalized here.
        k: number of neighbors, at least 1; lists hold min(k, N) entries.
        backend: "auto", "blocked", "faiss", "faiss_gpu" or a function, see
            :func:`ppcls_ise.clustering.neighbors.search_backend`.
        approximate: search by an HNSW graph of faiss instead, in O(N·log N·D): lists miss some
            neighbors (see :func:`search_recall`) and differ a little between runs. ``backend`` is
            not used then.
        processes: who shares the work; all of them call this alike and receive the same lists.
        progress: called as progress(stage, done, total), stage "neighbors", then "order" and where
            needed "ties".

    Returns:
        indices [N, min(k, N)] int64 and similarities [N, min(k, N)] float32, descending; -1 and
        -Inf at the end of a list that the approximate search could not fill.

    Raises:
        ValueError: k < 1, not a matrix, or a row with NaN/Inf (the first one is named).
        ConfigError: the backend is not available, or no faiss for the approximate search.
    """
    if approximate:
        if not faiss_search.installed():
            raise ConfigError(
                "Clustering.approximate needs the package faiss-cpu, which is not installed; "
                "without it the search is exact"
            )
        backend = faiss_search.approximate_candidates
    return search(features, k, backend=backend, processes=processes, progress=progress)


def search_recall(
    features: np.ndarray,
    indices: np.ndarray,
    *,
    sample: int = 200,
    seed: int = 0,
    processes: Processes = ONE_PROCESS,
) -> float:
    """Share of the true nearest rows in the lists [N, k], measured on ``sample`` random rows.

    An entry counts if no more than k rows have a larger inner product (up to rounding), so it does
    not matter which of several tied rows is in the list. O(sample·N·D) time, shared out.
    """
    matrix = as_features(features)
    count, k = indices.shape
    if not count:
        return 1.0
    hits = 0
    rows = np.random.default_rng(seed).choice(count, min(sample, count), replace=False)
    for row in rows[slice(*own_rows(len(rows), processes))]:
        scores = np.empty(count, dtype=np.float64)
        for start, stop in spans(count, _EXPAND_ROWS):
            scores[start:stop] = matrix[start:stop] @ matrix[row].astype(np.float64)
        bound = np.partition(scores, count - k)[count - k]
        found = indices[row][indices[row] >= 0]
        hits += np.count_nonzero(scores[found] >= bound - _SAME * max(abs(bound), 1e-300))
    return int(processes.whole(np.array([hits])).sum()) / (len(rows) * k)


def search(
    features: np.ndarray,
    k: int,
    *,
    groups: np.ndarray | None = None,
    lowest: np.ndarray | None = None,
    backend: str | Backend = "auto",
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`k_nearest` with two options for the callers inside this package.

    Args:
        features: [N, D].
        k: number of neighbors.
        groups: [N] integers; neighbors then come from other groups only, and lists that are
            shorter than k end with index -1 and similarity -Inf.
        lowest: [N] float32, receives the smallest inner product of each row; the backend is
            "blocked" then, as no other one finds it.
        backend: see :func:`k_nearest`.
        processes: see :func:`k_nearest`.
        progress: see :func:`k_nearest`.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    matrix = as_features(features)
    k = min(int(k), len(matrix))
    if not len(matrix):
        return np.empty((0, 0), dtype=np.int64), np.empty((0, 0), dtype=np.float32)
    norms = row_norms(matrix, processes=processes)
    representative = duplicate_groups(matrix, groups, processes=processes)
    rows, copy_of = np.unique(representative, return_inverse=True)
    copy_of = copy_of.ravel()
    unique = len(rows) == len(matrix)
    row_set = RowSet(
        features=matrix,
        rows=None if unique else rows,
        norms=norms[rows],
        groups=None if groups is None else np.asarray(groups)[rows],
    )
    kept = min(k, len(rows))
    width = min(kept + _PAD, len(rows))
    if lowest is None:
        find = search_backend(backend)
        if processes.size > 1:
            find = partial(find, processes=processes)
        candidates, values = find(row_set, width, progress=progress)
    else:
        found = np.empty(len(rows), dtype=np.float32)
        candidates, values = top_candidates(
            row_set, width, processes=processes, lowest=found, progress=progress
        )
        lowest[:] = found[copy_of]
    inexact = None
    first = own_rows(len(rows), processes)[0]
    try:
        indices, similarities, ties = order_candidates(
            row_set, candidates, values, kept, first=first, progress=progress
        )
    except InexactSearchError as error:
        inexact = error
    raise_together(inexact, InexactSearchError, processes)
    del candidates, values
    if unique:
        return processes.whole(indices), processes.whole(similarities)
    indices, similarities, ties = map(processes.whole, (indices, similarities, ties))
    own = slice(*own_rows(len(matrix), processes))
    wanted, line = np.unique(copy_of[own], return_inverse=True)
    lists = _expand_copies(indices, similarities, ties, wanted, copy_of, k)
    del indices, similarities, ties
    return processes.whole(lists[0][line.ravel()]), processes.whole(lists[1][line.ravel()])


def _expand_copies(
    indices: np.ndarray,
    similarities: np.ndarray,
    ties: np.ndarray,
    wanted: np.ndarray,
    copy_of: np.ndarray,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn lists over distinct rows [M, w] into lists over all N rows [R, k], those of the
    ``wanted`` [R] distinct rows.

    Only the first k copies of a row can appear in a list. Entries that tie are merged by index,
    copies of different rows included. ``copy_of`` [N]: the distinct row that each row equals.
    """
    members = np.argsort(copy_of, kind="stable")
    size = np.bincount(copy_of, minlength=len(indices))
    begin = np.cumsum(size) - size
    size = np.minimum(size, k)
    lists = np.full((len(wanted), k), -1, dtype=np.int64)
    values = np.full((len(wanted), k), -np.inf, dtype=np.float32)
    for start in range(0, len(wanted), _EXPAND_ROWS):
        rows = wanted[start : start + _EXPAND_ROWS]
        index = indices[rows]
        line, column = np.nonzero(index >= 0)
        entry = index[line, column]
        count = size[entry]
        offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        image = members[np.repeat(begin[entry], count) + offset]
        line, column = np.repeat(line, count), np.repeat(column, count)
        order = np.lexsort((image, ties[rows[line], column], line))
        line, column, image = line[order], column[order], image[order]
        place = np.arange(len(line)) - np.searchsorted(line, line)
        keep = place < k
        line, column, image, place = line[keep], column[keep], image[keep], place[keep]
        lists[line + start, place] = image
        values[line + start, place] = similarities[rows[line], column]
    return lists, values
