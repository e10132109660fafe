# SPDX-License-Identifier: Apache-2.0
"""Files that are either the old one or the new one, whole, whatever happens meanwhile."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ppcls_ise.errors import ConfigError, shown


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A scratch file that takes the place of ``path`` once it is complete and on the disk.

    The scratch file is in the folder of ``path``, which is created; it is removed on failure.

    Raises:
        OSError: it cannot be written there, and names ``path``, which is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{_start(path.name)}.{os.getpid()}.tmp")
    try:
        yield scratch
        flush(scratch)
        os.replace(scratch, path)
        flush(path.parent)
    except OSError as error:
        if error.filename not in (None, str(scratch)) or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        scratch.unlink(missing_ok=True)


def _start(name: str) -> str:
    """As much of a file's name as leaves room for a suffix: 255 bytes are the limit."""
    return os.fsdecode(os.fsencode(name)[:200])


def require_writable(folder: str | Path, key: str) -> None:
    """Make ``folder``, and make sure that files can be written there.

    Raises:
        ConfigError: they cannot; names ``key``, which sets the folder.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: no file can have that name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{key}: nothing can be written into {shown(folder)} ({reason}). Choose another "
            "folder, or change its permissions"
        ) from error


def require_replaceable(path: str | Path, key: str) -> None:
    """Make sure that `replacing` can write ``path``, before the work whose result it gets.

    Raises:
        ConfigError: it cannot; names ``key``, which sets the path.
    """
    if Path(path).is_dir():
        raise ConfigError(f"{key}: {shown(path)} is a folder: name a file")
    require_writable(Path(path).absolute().parent, key)


@contextmanager
def locked(path: str | Path, *, wait: float = 0.0) -> Iterator[None]:
    """Be the only one who changes ``path``, a file or a folder: hold ``<path>.lock`` beside it.

    The system frees the lock of a process that ends, however it ends.

    Args:
        wait: seconds to wait for another process; -1: as long as it takes.

    Raises:
        filelock.Timeout: another process has it.
        OSError: the lock file cannot be made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{_start(path.name)}.lock"), timeout=wait):
        yield


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Have the disk hold the content of a file, or the names in a folder."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere folders cannot be opened
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
