# SPDX-License-Identifier: Apache-2.0
"""Work shared out among the processes of one run, which all make the same calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from scipy import sparse

Item = TypeVar("Item")


class Processes(Protocol):
    """Processes that compute one result together: each its part, then all of them gather.

    Every one has to make the same calls with the same arguments, in the same order.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, part: np.ndarray) -> list[np.ndarray]:
        """The arrays of all processes by rank; they may differ in length, not in what follows.

        Every process waits for the others and receives all parts.
        """

    def whole(self, part: np.ndarray) -> np.ndarray:
        """The same rows as one array in rank order, which must not be written to: processes of a
        machine may share it. ``part`` itself where there is one process."""


class _OneProcess:
    rank = 0
    size = 1

    def gather(self, part: np.ndarray) -> list[np.ndarray]:
        return [part]

    def whole(self, part: np.ndarray) -> np.ndarray:
        return part


ONE_PROCESS: Processes = _OneProcess()


def rows_of(rank: int, count: int, processes: Processes) -> tuple[int, int]:
    """(start, stop) of the rows of process ``rank``: equal shares, in the order of the ranks."""
    return count * rank // processes.size, count * (rank + 1) // processes.size


def own_rows(count: int, processes: Processes) -> tuple[int, int]:
    """(start, stop) of the rows of this process."""
    return rows_of(processes.rank, count, processes)


def deal(items: Iterable[Item], processes: Processes) -> Iterator[Item]:
    """The items that are this process's turn."""
    return islice(items, processes.rank, None, processes.size)


def whole_matrix(part: sparse.csr_matrix, processes: Processes) -> sparse.csr_matrix:
    """The sparse rows of all processes in rank order, see `Processes.whole`."""
    if processes.size == 1:
        return part
    sizes = processes.whole(np.diff(part.indptr))
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    return sparse.csr_matrix(
        (processes.whole(part.data), processes.whole(part.indices), starts),
        shape=(len(sizes), part.shape[1]),
    )


def from_process_0(
    compute: Callable[[], np.ndarray], processes: Processes, *, otherwise: np.ndarray
) -> np.ndarray:
    """What ``compute`` gives on process 0, on all of them.

    Args:
        otherwise: an empty array of the same kind.
    """
    return processes.gather(compute() if processes.rank == 0 else otherwise)[0]


def raise_together(error: Exception | None, kind: type[Exception], processes: Processes) -> None:
    """Raise in all processes if one has an ``error``: the others would wait for it for ever."""
    failed = processes.whole(np.array([error is not None]))
    if error is not None:
        raise error
    if failed.any():
        raise kind(f"it failed in process {int(np.argmax(failed))}, whose log says why")
