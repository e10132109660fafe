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


def of_this_machine(gather: Gather) -> list[int]:
    """The processes of this machine (or container), by rank."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    own = np.frombuffer(f"{socket.gethostname()[:128]} {boot[:64]}".ljust(256).encode()[:256], "u1")
    return [rank for rank, each in enumerate(gather(own)) if (each == own).all()]


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


def opened_together(
    path: Path | None, leader: int, shape: Sequence[int], dtype: Any, gather: Gather
) -> np.ndarray | None:
    """The file that process ``leader`` made, as an array that its processes share; None where there
    is none. It has no name any more then, so nothing is left of it, however the processes end."""
    name = os.fsencode(path or "").ljust(_NAME_BYTES, b"\0")
    names = gather(np.frombuffer(name, np.uint8)[None])
    place = Path(os.fsdecode(names[leader].tobytes().rstrip(b"\0")))
    try:
        array = np.memmap(place, dtype, "r+", shape=tuple(shape))
    except OSError:  # none was made, or two containers call themselves the same
        array = None
    gather(np.zeros(1, np.uint8))  # all have opened it
    if path is not None:
        path.unlink()
    return array
