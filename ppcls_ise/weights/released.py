# SPDX-License-Identifier: Apache-2.0
"""Weights that PaddleClas's ISE page publishes, by name: downloaded once, checked, kept.

Their publisher gives no checksum. So a download counts only when it is complete (the length that
the server announces), is read by the loader that executes nothing, and holds exactly the names and
shapes of the ``RecModel``. Its SHA-256 is then noted beside it (``<file>.sha256``, in the format of
``sha256sum``), and the file has to match that note from then on. A note that is there before the
download pins the file. A transfer that breaks off is continued.
"""

import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ppcls_ise import compat
from ppcls_ise.errors import WeightsError
from ppcls_ise.utils.files import locked, sha256_of

CACHE_VARIABLE = "PPCLS_ISE_CACHE"
_LIMIT = 1 << 30  # bytes; a ResNet-50 with a classifier takes about a tenth of it
_TIMEOUT = 30.0  # seconds without a byte
_PAUSES = (1.0, 3.0)  # seconds before the second and the third attempt
_BLOCK = 1 << 18
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
# Worth another attempt; an HTTP status below 500 is not.
_NETWORK_ERRORS = (
    urllib.error.URLError,
    HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


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
        with locked(target, wait=-1):
            note = target.with_name(f"{target.name}.sha256")
            expected = sha256 or _read_note(note)
            if not target.is_file():
                compat.logger().info(f"downloading {url} to {target}")
                _download(url, target, check=lambda part: _verify(part, expected, check), key=key)
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


class _BrokenOff(ConnectionError):
    """The transfer ended before the announced length."""


def _download(url: str, target: Path, *, check: Callable[[Path], object], key: str) -> None:
    """Fetch ``url`` into ``target``, with a progress bar on a terminal.

    The bytes go to ``<target>.part``. What is there of an earlier attempt is continued (``Range``),
    provided that the server says it is still the same file (``If-Range`` with its ``ETag`` or
    date); otherwise the download starts anew. ``target`` appears by renaming, after ``check``.

    Args:
        check: raises WeightsError for a file that is not the wanted one; it is then deleted.

    Raises:
        WeightsError: no network, no such file, an incomplete transfer; says how to go on.
        OSError: the folder cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    for pause in (*_PAUSES, None):
        try:
            _continue(url, part)
            break
        except _NETWORK_ERRORS as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if final or pause is None:
                raise WeightsError(_advice(url, target, error, key)) from error
            time.sleep(pause)
    try:
        check(part)
    except WeightsError:
        _forget(part)
        raise
    os.replace(part, target)
    _forget(part)


def _continue(url: str, part: Path) -> None:
    version = _version_note(part)
    have = part.stat().st_size if part.is_file() and version.is_file() else 0
    headers = {"User-Agent": "ppcls_ise", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.read_text(encoding="latin-1")}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing after what is there: it is complete, or too long
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            _forget(part)
            raise _BrokenOff("the part that was there did not fit; it was deleted") from error
        raise
    with response:
        have, total = _position(response, have, part)
        if have == 0:
            _note_version(response, version)
        _save(response, part, have, total)


def _position(response: Any, have: int, part: Path) -> tuple[int, int | None]:
    """From where the server sends, and how long the whole file is."""
    if response.status == 206:
        sent = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if sent is None or int(sent[1]) != have:
            _forget(part)
            raise HTTPException("the server sent another range than it was asked for")
        return have, int(sent[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _save(response: Any, part: Path, have: int, total: int | None) -> None:
    limit = _LIMIT if total is None else min(total, _LIMIT)
    if (total or 0) > limit:
        _forget(part)
        raise WeightsError(f"{response.url} has {total:,} bytes: these cannot be the weights")
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with part.open("ab" if have else "wb") as file, bar:
        while block := response.read(_BLOCK):
            have += len(block)
            if have > limit:
                _forget(part)
                raise WeightsError(f"{response.url} sends more than {limit:,} bytes")
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have != total:
        raise _BrokenOff(f"{have:,} of {total:,} bytes received")


def _note_version(response: Any, version: Path) -> None:
    """Keep what tells one version of the remote file from another; without it, never continue."""
    version.unlink(missing_ok=True)
    tag = response.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):
        tag = response.headers.get("Last-Modified", "")
    if tag:
        version.write_text(tag, encoding="latin-1")


def _version_note(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_note(part).unlink(missing_ok=True)


def _advice(url: str, target: Path, error: Exception, key: str) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP status {error.code} {error.reason}"
    text = (
        f"{url} could not be downloaded ({reason}). Run again to continue; or fetch that file on "
        f"a machine with a network, and copy it to {target} or give its path: -o {key}=FILE."
    )
    if key.startswith("Arch.Backbone"):
        text += (
            " A converted file of torchvision does as well (docs/en/weights.md), and ISE_folder_cpu"
            " trains a small network without any weights."
        )
    return text
