# SPDX-License-Identifier: Apache-2.0
"""Arrays of which a machine holds one copy, however many processes run there."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHARED_MEMORY = Path("/dev/shm")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAME_BYTES = 1024

Gather = Callable[[np.ndarray], list[np.ndarray]]


def create(folder: Path, shape: Sequence[int], dtype: Any) -> Path:
    """A new file of zeros, with its room on the disk taken: a full disk is an error now, not the
    end of the process later.

    Raises:
        OSError: it cannot be had.
    """
    path = folder.absolute() / f".ppcls_ise-{secrets.token_hex(8)}"
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with path.open("xb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError:
            path.unlink()
            raise
    return path


def shared_array(
    make: Callable[[bool], Path | None],
    shape: Sequence[int],
    dtype: Any,
    *,
    rank: int,
    gather: Gather,
) -> tuple[np.ndarray | None, list[int]]:
    """Zeros in a file that the first process of each machine makes, and the ranks of the processes
    that share them; None and the own rank where there is no such file. All processes call this
    together. The file has no name any more then, so nothing is left of it, however they end.

    Args:
        make: called by that first process with whether there are others on its machine; the path of
            a file by `create`, or None.
        shape: of the array.
        dtype: of the array.
        rank: of this process.
        gather: see `AllProcesses.gather`.
    """
    machine = _of_this_machine(gather)
    path = make(len(machine) > 1) if rank == machine[0] else None
    name = os.fsencode(path or "").ljust(_NAME_BYTES, b"\0")
    names = gather(np.frombuffer(name, np.uint8)[None])
    place = Path(os.fsdecode(names[machine[0]].tobytes().rstrip(b"\0")))
    try:
        array = np.memmap(place, dtype, "r+", shape=tuple(shape))
    except OSError:  # none was made, or two containers call themselves the same
        array = None
    opened = np.concatenate(gather(np.array([array is not None])))
    if path is not None:
        path.unlink()
    return array, [rank] if array is None else [other for other in machine if opened[other]]


def _of_this_machine(gather: Gather) -> list[int]:
    """The processes of this machine (or container), by rank."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    own = np.frombuffer(f"{socket.gethostname()[:128]} {boot[:64]}".ljust(256).encode()[:256], "u1")
    return [rank for rank, each in enumerate(gather(own)) if (each == own).all()]
