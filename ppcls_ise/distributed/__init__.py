# SPDX-License-Identifier: Apache-2.0
"""Collectives over the processes of a training."""

from ppcls_ise.distributed.collectives import (
    AllProcesses,
    broadcast_array,
    broadcast_running_statistics,
    gather_arrays,
    gather_labels,
    gather_rows,
    largest,
    meet,
    meet_all,
)

__all__ = [
    "AllProcesses",
    "broadcast_array",
    "broadcast_running_statistics",
    "gather_arrays",
    "gather_labels",
    "gather_rows",
    "largest",
    "meet",
    "meet_all",
]
