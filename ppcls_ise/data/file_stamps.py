# SPDX-License-Identifier: Apache-2.0
"""Whether files are still those that a run began with, and which of them are copies."""

import os
from collections import defaultdict
from collections.abc import Sequence

from ppcls_ise.utils.files import sha256_of


class FileStamps:
    """Size and time of change of N files, as they are now.

    A file that is missing now has to stay missing. Cost: N calls of ``stat``, here and in
    `changes`; two integers per file.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._stamps = {path: _stamp(path) for path in paths}

    def sizes(self) -> list[int | None]:
        """Bytes of each file; None where it was missing."""
        return [stamp and stamp[0] for stamp in self._stamps.values()]

    def times(self) -> list[int | None]:
        """When each was changed last, in ns; None where it was missing."""
        return [stamp and stamp[1] for stamp in self._stamps.values()]

    def changes(self) -> list[tuple[str, str]]:
        """(path, "was removed", "was added" or "was changed") of every file that is another."""
        found = []
        for path, before in self._stamps.items():
            if (now := _stamp(path)) != before:
                word = "removed" if now is None else "added" if before is None else "changed"
                found.append((path, f"was {word}"))
        return found


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a list names a path that no file can have
        return None
    return status.st_size, status.st_mtime_ns


def copies(paths: Sequence[str]) -> dict[str, str]:
    """Files that hold the same bytes as an earlier one: path -> the first such path.

    Only files of equal size are read. Unreadable files are left out.
    """
    of_size = defaultdict(list)
    for path in paths:
        if stamp := _stamp(path):
            of_size[stamp[0]].append(path)
    first: dict[str, str] = {}
    found = {}
    for group in of_size.values():
        for path in group if len(group) > 1 else ():
            try:
                digest = sha256_of(path)
            except OSError:
                continue
            if path != first.setdefault(digest, path):
                found[path] = first[digest]
    return found
