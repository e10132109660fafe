# SPDX-License-Identifier: Apache-2.0
"""Files that are either the old one or the new one, whole, whatever happens meanwhile."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A scratch file that takes the place of ``path`` once it is complete and on the disk.

    The scratch file is in the folder of ``path``, which is created; it is removed on failure.

    Raises:
        OSError: it cannot be written there; ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield scratch
        flush(scratch)
        os.replace(scratch, path)
        flush(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the disk hold the content of a file, or the names in a folder."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere folders cannot be opened
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
