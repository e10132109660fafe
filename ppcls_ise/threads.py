# SPDX-License-Identifier: Apache-2.0
"""How many cores this process may use."""

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_OLD_QUOTA = Path("/sys/fs/cgroup/cpu")


def core_count() -> int:
    """Cores that the scheduler and the container's quota leave to this process, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.ceil(min(cores or 1, _quota())))


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
