# SPDX-License-Identifier: Apache-2.0
"""Where the features of a data set are held: in memory, shared by the processes of a machine, or on
its disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppcls_ise import compat
from ppcls_ise.distributed import AllProcesses
from ppcls_ise.distributed.shared_arrays import SHARED_MEMORY, create, shared_array
from ppcls_ise.errors import ConfigError

AUTO = "auto"
_MUCH = 0.5  # share of the available memory from which on auto means the disk
_MEMORY_INFO = Path("/proc/meminfo")


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
        array, near = shared_array(
            lambda many: self._create(shape, many=many),
            shape,
            np.float32,
            rank=processes.rank,
            gather=processes.gather,
        )
        if array is None:
            return np.zeros(shape, np.float32), True
        leads = processes.rank == near[0]
        array.flags.writeable = leads
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

    def _create(self, shape: tuple[int, int], *, many: bool) -> Path | None:
        """A file for them; None: nowhere but in the memory of each process."""
        size = 4 * shape[0] * shape[1]
        folder = self._folder(size)
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                return create(folder, shape, np.float32)
            except OSError as error:
                raise ConfigError(
                    f"Clustering.features_on_disk={self.on_disk}: {size / 1e9:.1f} GB cannot be "
                    f"written into {folder} ({error.strerror}): name another folder, or null for "
                    "the memory"
                ) from error
        if not many:
            return None
        try:
            return create(SHARED_MEMORY, shape, np.float32)
        except OSError as error:
            compat.logger().info(
                f"{SHARED_MEMORY} has no room for {size / 1e9:.1f} GB of features "
                f"({error.strerror}), so every process holds its own copy (in a container: docker "
                "run --shm-size)"
            )
            return None


def available_memory() -> float:
    """Bytes that can be had without pushing others out; infinite where the kernel does not say."""
    if _MEMORY_INFO.exists():
        for line in _MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")
