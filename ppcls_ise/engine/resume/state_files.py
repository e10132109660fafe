# SPDX-License-Identifier: Apache-2.0
"""Training states on disk: whole or not there, checked before use, read without running code.

A state is a tree (`ppcls_ise.utils.array_files`) in a file with its number: ``000017.safetensors``.
PaddleClas's own files get a list of checksums beside them (``latest.sha256``, the format of
``sha256sum -c``).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppcls_ise.errors import WeightsError
from ppcls_ise.utils.array_files import read_tree, write_tree
from ppcls_ise.utils.files import flush, replacing, sha256_of

KIND = "ppcls_ise state 2"
LATEST = "latest"
STATE_FOLDER = "resume"  # beside latest.pdparams
_NAME = re.compile(r"(\d{6,12})\.safetensors")
_OLD_NAME = re.compile(r"\d{6,}-[0-9a-f]{16}\.npz")


class StateFolder:
    """The newest states of a run, in one folder, numbered through.

    Args:
        folder: created when a state is written.
        keep: how many states stay; the oldest go once a new one is complete.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self._own: list[Path] = []

    @property
    def last(self) -> Path | None:
        """The newest state that this run has written or been resumed from."""
        return self._own[-1] if self._own else None

    def adopt(self, path: Path) -> None:
        """Count a state that this run continues among its own."""
        self._own.append(path)

    def paths(self) -> list[Path]:
        """All states, newest first, whole or not."""
        files = [path for path in _entries(self.folder) if _NAME.fullmatch(path.name)]
        return sorted(files, key=_number, reverse=True)

    def has_old_states(self) -> bool:
        """Whether there are states of version 0.1, which are not read any more."""
        return any(_OLD_NAME.fullmatch(path.name) for path in _entries(self.folder))

    def write(self, state: Mapping[str, Any]) -> Path:
        """Write a state, then delete all but the newest ``keep`` of this run.

        States of another run in the same folder go with the first state of this one.

        Raises:
            OSError: it cannot be written; the states before it are untouched.
        """
        for left in self.folder.glob("*.tmp"):  # by a killed process
            left.unlink(missing_ok=True)
        number = max(map(_number, self.paths()), default=0) + 1
        path = self.folder / f"{number:06d}.safetensors"
        write_tree(path, state, kind=KIND)
        self._own = [*self._own, path][-self.keep :]
        for old in self.paths():
            if old not in self._own:
                old.unlink(missing_ok=True)
        return path


def read_state_file(path: Path) -> dict[str, Any]:
    """Read what `StateFolder.write` wrote.

    Raises:
        WeightsError: it is damaged, or not such a file.
    """
    try:
        return read_tree(path, kind=KIND, error=WeightsError)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error


# -- PaddleClas's files ---------------------------------------------------------------------------


def publish(source: Path, target: Path, name: str) -> None:
    """Move finished files to where they belong, each replaced as a whole, and note their checksums
    in ``<target>/<name>.sha256``, last of all.

    Args:
        source: folder that holds nothing else; on the file system of ``target``.
        target: folder that gets the files, at the same relative places.

    Raises:
        OSError: something cannot be written. Files moved before that are whole.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    lines = []
    for file in files:
        flush(file)
        lines.append(f"{sha256_of(file)}  {file.relative_to(source).as_posix()}\n")
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, place)
    flush(target)
    with replacing(target / f"{name}.sha256") as scratch:
        scratch.write_text("".join(lines), encoding="utf-8")


def published_problem(prefix: str) -> str | None:
    """What is wrong with the files of a checkpoint, by its list of checksums; None without one.

    Args:
        prefix: path without suffix.
    """
    listing = Path(f"{prefix}.sha256")
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
        for digest, _, name in (line.partition("  ") for line in lines):
            file = listing.parent / name
            if not file.is_file():
                return f"there is no {file}, which {listing} lists"
            if sha256_of(file) != digest:
                return f"{file} is not the file that {listing} lists"
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return f"{listing} cannot be read: {error}"
    return None


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _number(path: Path) -> int:
    return int(path.name.partition(".")[0])
