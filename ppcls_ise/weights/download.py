# SPDX-License-Identifier: Apache-2.0
"""Downloading one file: continued where it broke off, complete or not there at all."""

import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ppcls_ise.errors import WeightsError

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


class _BrokenOff(ConnectionError):
    """The transfer ended before the announced length."""


def download(
    url: str,
    target: Path,
    *,
    check: Callable[[Path], None],
    key: str = "Global.pretrained_model",
) -> None:
    """Fetch ``url`` into ``target``, with a progress bar on a terminal.

    The bytes go to ``<target>.part``. What is there of an earlier attempt is continued (``Range``),
    provided that the server says it is still the same file (``If-Range`` with its ``ETag`` or
    date); otherwise the download starts anew. ``target`` appears by renaming, after ``check``.

    Args:
        check: raises WeightsError for a file that is not the wanted one; it is then deleted.
        key: of the configuration, which may name a file instead; for messages.

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
    return (
        f"{url} could not be downloaded ({reason}). Run again to continue; or fetch that file on "
        f"a machine with a network, and copy it to {target} or give its path in "
        f"{key}."
    )
