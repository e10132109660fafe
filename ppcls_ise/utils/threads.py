# SPDX-License-Identifier: Apache-2.0
"""How many cores this process may use, and for what it uses them.

Paddle sets ``OMP_NUM_THREADS`` to 1 when it is imported unless it is set already, so
``ppcls_ise/__init__.py`` imports this module first, to know what the user has set.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_OLD_QUOTA = Path("/sys/fs/cgroup/cpu")
_VARIABLE = "OMP_NUM_THREADS"
_SET_BY_USER = None if "paddle" in sys.modules else os.environ.get(_VARIABLE)


def core_count() -> int:
    """Cores that the scheduler and the container's quota leave to this process, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.ceil(min(cores or 1, _quota())))


def static_threads() -> int:
    """Threads for static graphs: what the user has set in ``OMP_NUM_THREADS``, else this process's
    part of the cores."""
    if _SET_BY_USER and _SET_BY_USER.isdigit():
        return max(1, int(_SET_BY_USER))
    return work_threads()


def work_threads() -> int:
    """Threads for the search and the like: this process's part of the cores."""
    return max(1, core_count() // _local_processes())


def eager_threads() -> int:
    """Threads for Paddle's eager operators: what the user has set, else 1, because more are
    slower after the first step of Adam (docs/design.md)."""
    return static_threads() if _SET_BY_USER else 1


@contextmanager
def faiss_threads() -> Iterator[None]:
    """Let faiss use this process's part of the cores. It shares OpenMP with Paddle, so the number
    of threads, on which the last bits of a sum depend, is put back afterwards."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(work_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def describe_threads() -> str:
    """One line for the log."""
    processes = _local_processes()
    shared = f" for {processes} processes" if processes > 1 else ""
    source = f"set by {_VARIABLE}" if _SET_BY_USER else f"{_VARIABLE} would set both"
    return (
        f"{core_count()} CPU cores{shared}: {static_threads()} threads for static graphs, such as "
        f"those of features, and {eager_threads()} for eager operators ({source})"
    )


def _local_processes() -> int:
    """Processes of this run on this machine, as ``paddle.distributed.launch`` tells them."""
    local = os.environ.get("PADDLE_LOCAL_SIZE") or os.environ.get("PADDLE_TRAINERS_NUM") or "1"
    return max(1, int(local)) if local.isdigit() else 1


def _quota() -> float:
    """CPU time per time that the container may use; infinite where nothing is said."""
    try:
        if _QUOTA.exists():
            limit, period = _QUOTA.read_text().split()
        else:
            limit = (_OLD_QUOTA / "cpu.cfs_quota_us").read_text().strip()
            period = (_OLD_QUOTA / "cpu.cfs_period_us").read_text()
        return math.inf if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError):  # no such files, or a format of another kernel
        return math.inf
