# SPDX-License-Identifier: Apache-2.0
"""Where the features of a data set are held: in memory, shared by the processes of a machine, or on
its disk."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls_ise import compat
from ppcls_ise.distributed.collectives import AllProcesses, meet_all
from ppcls_ise.engine.memory_needs import SHARED_MEMORY
from ppcls_ise.errors import ConfigError

AUTO = "auto"
_MUCH = 0.5  # share of the available memory from which on auto means the disk
_MEMORY_INFO = Path("/proc/meminfo")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAME_BYTES = 1024


@dataclass(frozen=True)
class FeatureStorage:
    """How features are held.

    Attributes:
        on_disk: None: in memory. True: in a file in ``folder``. A path: in a file in that folder.
            "auto": in ``folder`` where they would take more than half of the available memory.
        folder: see there.

    The file has no name any more as soon as it is open, so nothing is left of it, however the
    processes end. Several processes of a machine share one copy, on the disk or in shared memory
    (/dev/shm); where that is too small, as in a container by default, each has its own.
    """

    on_disk: bool | str | None = None
    folder: Path = Path()

    def zeros(self, count: int, dim: int) -> tuple[np.ndarray, bool]:
        """Zeros [count, dim] float32, and whether this process has to fill them; another process
        of this machine does otherwise, in the same place. All processes call this together.

        Raises:
            ConfigError: the file cannot be made; names the key.
        """
        processes = AllProcesses()
        shape = (count, dim)
        group = _of_this_machine(processes)
        leads = processes.rank == group[0]
        path, array = None, None
        if leads:
            folder = self._folder(4 * count * dim)
            if folder is not None:
                path, array = self._create(folder, shape)
            elif len(group) > 1:
                path, array = _shared(shape)
        if processes.size > 1:
            name = os.fsencode(path or "").ljust(_NAME_BYTES, b"\0")
            names = processes.gather(np.frombuffer(name, np.uint8)[None])
            if not leads:
                array = _opened(Path(os.fsdecode(names[group[0]].tobytes().rstrip(b"\0"))), shape)
            meet_all()  # all have opened it
        if path is not None:
            path.unlink()
        if array is None:
            return np.zeros(shape, np.float32), True
        return array, leads

    def _folder(self, size: int) -> Path | None:
        """Where to write ``size`` bytes; None: nowhere."""
        if self.on_disk is None or self.on_disk is False:
            return None
        if self.on_disk == AUTO:
            if size <= _MUCH * available_memory():
                return None
            compat.logger().info(
                f"[Cluster] the features take {size / 1e9:.1f} GB, more than half of the available "
                f"memory: they are held in a file in {self.folder} (Clustering.features_on_disk)"
            )
        return self.folder if self.on_disk in (True, AUTO) else Path(str(self.on_disk))

    def _create(self, folder: Path, shape: tuple[int, int]) -> tuple[Path, np.ndarray]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _made(folder, shape)
        except OSError as error:
            raise ConfigError(
                f"Clustering.features_on_disk={self.on_disk}: {4 * shape[0] * shape[1] / 1e9:.1f} "
                f"GB cannot be written into {folder} ({error.strerror}): name another folder, or "
                "null for the memory"
            ) from error


def available_memory() -> float:
    """Bytes that can be had without pushing others out; infinite where the kernel does not say."""
    if _MEMORY_INFO.exists():
        for line in _MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


def _of_this_machine(processes: AllProcesses) -> list[int]:
    """The processes of this machine (or container), by rank."""
    if processes.size == 1:
        return [0]
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    own = np.frombuffer(f"{socket.gethostname()[:128]} {boot[:64]}".ljust(256).encode()[:256], "u1")
    return [rank for rank, each in enumerate(processes.gather(own)) if (each == own).all()]


def _made(folder: Path, shape: tuple[int, int]) -> tuple[Path, np.ndarray]:
    """A new file of zeros, with its room on the disk taken: a full disk is an error now, not the
    end of the process later."""
    path = folder.absolute() / f".features-{secrets.token_hex(8)}"
    with path.open("xb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
            else:
                file.truncate(4 * shape[0] * shape[1])
        except OSError:
            path.unlink()
            raise
    return path, np.memmap(path, np.float32, "r+", shape=shape)


def _shared(shape: tuple[int, int]) -> tuple[Path | None, np.ndarray | None]:
    """The same in shared memory, if there is room."""
    try:
        return _made(SHARED_MEMORY, shape)
    except OSError as error:
        compat.logger().info(
            f"{SHARED_MEMORY} has no room for {4 * shape[0] * shape[1] / 1e9:.1f} GB of features "
            f"({error.strerror}), so every process holds its own copy (in a container: docker run "
            "--shm-size)"
        )
        return None, None


def _opened(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        return np.memmap(path, np.float32, "r", shape=shape)
    except OSError:  # none was made, or two containers call themselves the same
        return None
