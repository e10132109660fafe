# SPDX-License-Identifier: Apache-2.0
"""A folder of results in which nothing that somebody else made or changed is ever replaced."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.utils.files import reading, replacing, scratch_beside, sha256_of

_NOTES = "written.json"


class ResultsFolder:
    """Remembers what was written by name and checksum, and replaces only that.

    Args:
        folder: made if it is not there.
        own: names by which a folder without notes is known to be ours.

    Raises:
        ConfigError: it holds something else.
        DataError: the notes are damaged.
    """

    def __init__(self, folder: str | Path, *, own: tuple[str, ...]) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"--out: {shown(folder)} is a file: name a folder")
        self._digests: dict[str, list[str]] = {}  # two of them while a file is replaced
        notes = self.folder / _NOTES
        if notes.is_file():
            with reading(notes, DataError, "is damaged"):
                found = json.loads(notes.read_text(encoding="utf-8"))
                self._digests = {str(name): list(map(str, found[name])) for name in found}
        elif self.folder.is_dir():
            names = sorted(os.listdir(self.folder))
            if names and not set(names) & set(own):
                raise ConfigError(
                    f"--out: {shown(folder)} holds other things ({shown(names[0])}): name a new "
                    "folder"
                )

    def require_own(self, name: str) -> None:
        """Make sure that ``name`` may be replaced.

        Raises:
            ConfigError: somebody else made or changed it.
        """
        path = self.folder / name
        if os.path.lexists(path) and _digest(path) not in self._digests.get(name, []):
            raise ConfigError(
                f"{shown(path)} was changed since it was written, or made by something else, and "
                "would be replaced: rename or remove it first"
            )

    def write(self, name: str, make: Callable[[Path], object]) -> Path:
        """Have ``make(path)`` write a new file or folder, which then takes the place of ``name``.

        Raises:
            ConfigError: see `require_own`.
            OSError: it cannot be written.
        """
        self.require_own(name)
        path = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = scratch_beside(path)
        old = scratch.with_name(f"{scratch.stem}.old{scratch.suffix}")
        try:
            make(scratch)
            digest = _digest(scratch)
            self._note(name, [*self._digests.get(name, []), digest])
            if path.is_dir():
                os.replace(path, old)
            os.replace(scratch, path)
            self._note(name, [digest])
        finally:
            for left in (scratch, old):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        return path

    def _note(self, name: str, digests: list[str]) -> None:
        self._digests[name] = digests
        with replacing(self.folder / _NOTES) as scratch:
            scratch.write_text(json.dumps(self._digests, indent=1) + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    """Of a file: its SHA-256. Of a folder: that of its files' names, sizes and link targets."""
    if not path.is_dir() or path.is_symlink():
        return sha256_of(path)
    lines = []
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        what = os.readlink(entry.path) if entry.is_symlink() else str(entry.stat().st_size)
        lines.append(f"{entry.name}\n{what}\n")
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
