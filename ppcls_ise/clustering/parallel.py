# SPDX-License-Identifier: Apache-2.0
"""Work on all cores: numpy, scipy's sparse products and BLAS release the interpreter lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from ppcls_ise.utils.threads import work_threads

# Called as progress(stage, done, total) by the thread that asked for the work.
Progress = Callable[[str, int, int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``function(item)`` of every item, in the order of the items, computed by a thread per core
    of this process's part.

    BLAS gets one thread per call meanwhile, so that a result never depends on the number of cores.
    Few items are in flight at a time: results that nobody keeps take no memory, and ``items`` may
    be made on the way. Whoever asks for the results draws the items, too, in its own thread.

    Args:
        function: must not depend on the order in which items are computed.
        items: as many as there are; a handful of numpy calls each make the threads worth it.
    """
    workers = work_threads()
    source = iter(items)
    pending: deque[Future[Result]] = deque()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        try:
            pending.extend(pool.submit(function, item) for item in islice(source, 2 * workers))
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


def spans(count: int, step: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive blocks of ``step`` of ``count`` rows."""
    for start in range(0, count, step):
        yield start, min(start + step, count)


def map_rows(
    function: Callable[[tuple[int, int]], Result],
    count: int,
    step: int,
    stage: str = "",
    progress: Progress | None = None,
) -> Iterator[Result]:
    """``function((start, stop))`` of all :func:`spans`, computed by :func:`ordered_map`."""
    for done, result in enumerate(ordered_map(function, spans(count, step)), 1):
        yield result
        if progress is not None:
            progress(stage, min(done * step, count), count)


def stack_rows(blocks: Iterable[sparse.csr_matrix], columns: int, most: int) -> sparse.csr_matrix:
    """Blocks of float32 rows, one below the other, without ever holding all blocks and the result.

    Room is made for ``most`` entries (untouched memory costs nothing) and cut to what is used.
    """
    data = np.empty(most, dtype=np.float32)
    indices = np.empty(most, dtype=np.int32)
    starts = [np.zeros(1, dtype=np.int64)]
    for block in blocks:
        begin = int(starts[-1][-1])
        data[begin : begin + block.nnz] = block.data
        indices[begin : begin + block.nnz] = block.indices
        starts.append(begin + block.indptr[1:].astype(np.int64))
    indptr = np.concatenate(starts)
    for whole in (data, indices):
        whole.resize(indptr[-1], refcheck=False)
    return sparse.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, columns))


def equal_work(work: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive blocks of rows of at most ``most`` work, or of one row.

    Args:
        work: [rows + 1] ascending, the work of all rows before each row.
        most: work per block.
    """
    start, count = 0, len(work) - 1
    while start < count:
        stop = int(np.searchsorted(work, work[start] + most, side="right")) - 1
        stop = min(max(stop, start + 1), count)
        yield start, stop
        start = stop
