# SPDX-License-Identifier: Apache-2.0
"""Files that are either the old one or the new one, whole, whatever happens meanwhile; and what is
said of those that cannot be read."""

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ppcls_ise.errors import ConfigError, ReIDError, shown

_REASON = 300  # characters


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A scratch file that takes the place of ``path`` once it is complete and on the disk.

    The scratch file is in the folder of ``path``, which is created; it is removed on failure.

    Raises:
        OSError: it cannot be written there, and names ``path``, which is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_beside(path)
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


def scratch_beside(path: str | Path) -> Path:
    """A free name in the folder of ``path`` for a file or folder that will take its place.

    What a process that is gone left under such a name is removed. The name is short, however long
    that of ``path`` is.
    """
    path = Path(path)
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    name = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    for old in path.parent.glob(f".{name}.{machine}.*.tmp"):
        if not _is_running(old.suffixes[-2][1:]):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    return path.with_name(f".{name}.{machine}.{os.getpid()}.tmp")


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        pass  # it is somebody else's
    return True


def _start(name: str) -> str:
    """As much of a file's name as leaves room for a suffix: 255 bytes are the limit."""
    return os.fsdecode(os.fsencode(name)[:200])


@contextmanager
def reading(path: str | os.PathLike[str], error: type[ReIDError], what: str) -> Iterator[None]:
    """Decoding a file inside ends as ``error`` whatever the decoders raise for a file that is not
    what it should be; they do not say what that can be.

    Args:
        what: "is no such thing", which follows the path in the message.

    Raises:
        error: see above; an error of ours passes as it is.
        FileNotFoundError, IsADirectoryError, PermissionError: it cannot be opened.
    """
    try:
        yield
    except (ReIDError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as reason:  # MemoryError and RecursionError too
        text = " ".join(str(reason).split())[:_REASON] or type(reason).__name__
        raise error(f"{shown(path)} {what}: {shown(text)}") from reason


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
