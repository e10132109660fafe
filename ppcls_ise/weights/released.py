# SPDX-License-Identifier: Apache-2.0
"""Weights that PaddleClas's ISE page publishes, by name: downloaded once, checked, kept.

Their publisher gives no checksum. So a download counts only when it is complete (the length that
the server announces), is read by the loader that executes nothing, and holds exactly the names and
shapes of the ``RecModel``. Its SHA-256 is then noted beside it (``<file>.sha256``, in the format of
``sha256sum``), and the file has to match that note from then on. A note that is there before the
download pins the file.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ppcls_ise import compat
from ppcls_ise.errors import WeightsError
from ppcls_ise.utils.files import sha256_of
from ppcls_ise.weights.download import download

CACHE_VARIABLE = "PPCLS_ISE_CACHE"


@dataclass(frozen=True)
class Released:
    """One published file; ``sha256`` where the publisher or a user made it known."""

    url: str
    sha256: str | None = None


_PAGE = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"
RELEASED = {
    "ISE_M": Released(f"{_PAGE}/ISE_M_model.pdparams"),  # Market-1501
    "ISE_MS": Released(f"{_PAGE}/ISE_MS_model.pdparams"),  # MSMT17
}


def cache_folder() -> Path:
    """``PPCLS_ISE_CACHE``, else ``~/.cache/ppcls_ise``."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "ppcls_ise"


def released_file(name: str, *, check: Callable[[Path], object]) -> Path:
    """The local copy of released weights, downloaded where there is none.

    Processes that ask at the same time wait for the one that downloads.

    Args:
        name: a key of `RELEASED`.
        check: raises WeightsError for a file of another structure.

    Raises:
        WeightsError: the download failed, or the file is not what it has to be; says what to do.
    """
    released = RELEASED[name]
    return downloaded_file(released.url, folder=cache_folder(), check=check, sha256=released.sha256)


def downloaded_file(
    url: str,
    *,
    folder: Path,
    check: Callable[[Path], object],
    sha256: str | None = None,
    key: str = "Global.pretrained_model",
) -> Path:
    """The file behind ``url``, kept in ``folder``; see the module on what is checked when.

    Args:
        check: raises WeightsError for a file that is not the wanted one.
        sha256: what the file has to have; without it, the note beside the file counts.
        key: of the configuration, which may name a file instead; for messages.

    Raises:
        WeightsError: see `released_file`.
    """
    target = folder / url.rsplit("/", 1)[-1]
    try:
        with _only_process(target.with_name(f"{target.name}.lock")):
            note = target.with_name(f"{target.name}.sha256")
            expected = sha256 or _read_note(note)
            if not target.is_file():
                compat.logger().info(f"downloading {url} to {target}")
                download(url, target, check=lambda part: _verify(part, expected, check), key=key)
            elif note.is_file():
                _verify(target, expected, None)
            else:
                _verify(target, expected, check)  # put there by hand
            if not note.is_file():
                note.write_text(f"{sha256_of(target)}  {target.name}\n", encoding="ascii")
    except OSError as error:
        raise WeightsError(
            f"the folder for downloaded weights cannot be used ({error}). Set {CACHE_VARIABLE} to "
            "another folder."
        ) from error
    return target


def _verify(path: Path, expected: str | None, check: Callable[[Path], object] | None) -> None:
    if expected and (found := sha256_of(path)) != expected:
        raise WeightsError(
            f"{path} has the SHA-256 {found} instead of {expected}. It is damaged, or another "
            "file than before: delete it, and its .sha256 if the new one is wanted."
        )
    if check is not None:
        check(path)


def _read_note(note: Path) -> str | None:
    if not note.is_file():
        return None
    words = note.read_text(encoding="utf-8", errors="replace").split()
    if not words or len(words[0]) != 64 or set(words[0].lower()) - set("0123456789abcdef"):
        raise WeightsError(f"{note} does not begin with a SHA-256: put it right, or delete it")
    return words[0].lower()


@contextmanager
def _only_process(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
