# SPDX-License-Identifier: Apache-2.0
"""Training states on disk: whole or not there, checked before use, read without running code.

A state is a tree of tables, lists, numbers, texts and arrays. Its file is a plain ``.npz`` whose
name holds its number and the beginning of its SHA-256: ``000017-3f1c0a5b9d2e4c77.npz``. The file
appears under that name complete or not at all, and whatever damages it later no longer fits the
name. PaddleClas's own files get a list of checksums beside them (``latest.sha256``, the format of
``sha256sum -c``).
"""

import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise.errors import WeightsError
from ppcls_ise.utils.files import flush, replacing, sha256_of

_NAME = re.compile(r"(\d{6,})-([0-9a-f]{16})\.npz")
_TREE = "tree"
_ARRAY = "array"
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


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
        return sorted(files, key=lambda path: int(path.name.split("-")[0]), reverse=True)

    def write(self, state: Mapping[str, Any]) -> Path:
        """Write a state, then delete all but the newest ``keep`` of this run.

        States of another run in the same folder go with the first state of this one.

        Raises:
            OSError: it cannot be written; the states before it are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        newest = next(iter(self.paths()), None)
        number = int(newest.name.split("-")[0]) + 1 if newest else 1
        scratch = self.folder / "writing.tmp"  # what a killed process left there is overwritten
        arrays: dict[str, np.ndarray] = {}
        tree = json.dumps(_flatten(state, arrays))
        arrays[_TREE] = np.frombuffer(tree.encode(), np.uint8)
        try:
            with scratch.open("wb") as file:
                # numpy's types take ** for its option allow_pickle
                np.savez(file, **arrays)  # type: ignore[arg-type]
            flush(scratch)
            path = self.folder / f"{number:06d}-{sha256_of(scratch)[:16]}.npz"
            os.replace(scratch, path)
            flush(self.folder)
        finally:
            scratch.unlink(missing_ok=True)
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
    name = _NAME.fullmatch(path.name)
    if not name:
        raise WeightsError(f"{path} is not named <number>-<checksum>.npz")
    try:
        found = sha256_of(path)[:16]
        if found != name[2]:
            raise WeightsError(f"{path} is damaged: its SHA-256 begins with {found}, not {name[2]}")
        with np.load(path, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
        state = _restore(json.loads(arrays[_TREE].tobytes()), arrays)
    except WeightsError:
        raise
    except _UNREADABLE as error:
        raise WeightsError(f"{path} is not a training state: {error}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} is not a training state")
    return state


def _flatten(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """``value`` as JSON, its arrays put into ``arrays``."""
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {"table": {key: _flatten(item, arrays) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [_flatten(item, arrays) for item in value]
    return value


def _restore(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_restore(item, arrays) for item in value]
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: _restore(item, arrays) for key, item in value["table"].items()}
    return value


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
