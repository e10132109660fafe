# SPDX-License-Identifier: Apache-2.0
"""Several "processes" as threads of one, for what only needs the protocol `Processes`."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits


class _Emulated:
    def __init__(self, rank: int, size: int, barrier: threading.Barrier, slots: list) -> None:
        self.rank, self.size = rank, size
        self._barrier, self._slots = barrier, slots

    def gather(self, part):
        self._slots[self.rank] = part
        self._barrier.wait()
        parts = [array.copy() for array in self._slots]
        self._barrier.wait()
        assert len({(array.dtype, array.shape[1:]) for array in parts}) == 1
        return parts

    def whole(self, part):
        rows = np.concatenate(self.gather(part))
        rows.flags.writeable = False
        return rows


def together(size: int, work) -> list:
    """``work(processes)`` of every rank; an error of one ends all."""
    barrier, slots = threading.Barrier(size, timeout=60), [None] * size

    def run(rank: int):
        try:
            return work(_Emulated(rank, size, barrier, slots))
        except BaseException:
            barrier.abort()
            raise

    # The limit of every search is put back when it ends, which the others must not notice.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(size) as pool:
        running = [pool.submit(run, rank) for rank in range(size)]
        failures = [error for job in running if (error := job.exception()) is not None]
        for error in failures:
            if not isinstance(error, threading.BrokenBarrierError):
                raise error
        return [job.result() for job in running]
