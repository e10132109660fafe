# SPDX-License-Identifier: Apache-2.0
"""The file of a gallery: a line with a checksum, then arrays of plain numbers.

The first line is ``ppcls_ise gallery 1 <sha256>``; the rest, which the checksum covers, is an
uncompressed ``.npz``. Nothing in the file is executed or unpickled.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppcls_ise.errors import DataError, shown
from ppcls_ise.utils.files import replacing

_MAGIC = b"ppcls_ise gallery 1 "
_HEAD = len(_MAGIC) + 64 + 1
_PIECE = 1 << 20
_FACTS = "facts"


def write_arrays(path: str | Path, facts: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write ``facts`` (what JSON can say) and ``arrays`` atomically.

    Raises:
        OSError: it cannot be written there; a file of that name is as it was.
    """
    text = np.frombuffer(json.dumps(facts).encode("ascii"), np.uint8)
    with replacing(path) as scratch, scratch.open("w+b") as file:
        file.write(bytes(_HEAD))
        # numpy's types take ** for its option allow_pickle
        np.savez(file, **{_FACTS: text}, **arrays)  # type: ignore[arg-type]
        digest = _digest(file)
        file.seek(0)
        file.write(_MAGIC + digest + b"\n")


def read_arrays(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `write_arrays` wrote.

    Raises:
        DataError: it is another kind of file, or not as it was written.
        OSError: there is no such file, or it cannot be read.
    """
    with Path(path).open("rb") as file:
        head = file.read(_HEAD)
        if not head.startswith(_MAGIC):
            raise DataError(
                f"{shown(path)} is no gallery of this version. Make one with ppcls-ise search "
                "build."
            )
        if head[len(_MAGIC) :] != _digest(file) + b"\n":
            raise DataError(
                f"{shown(path)} is damaged: its checksum is wrong. Restore it, or build it again "
                "with ppcls-ise search build."
            )
        file.seek(_HEAD)
        try:
            with np.load(file, allow_pickle=False) as content:
                arrays = {name: content[name] for name in content.files}
            facts = json.loads(arrays.pop(_FACTS).astype(np.uint8).tobytes())
        except (
            *(ValueError, KeyError, TypeError, AttributeError, EOFError, OSError),
            *(MemoryError, NotImplementedError, RuntimeError, SyntaxError, zipfile.BadZipFile),
        ) as error:
            raise DataError(
                f"{shown(path)} holds something else than a gallery: {error}"
            ) from error
    if not isinstance(facts, dict):
        raise DataError(f"{shown(path)} holds something else than a gallery")
    return facts, arrays


def _digest(file: BinaryIO) -> bytes:
    """SHA-256 of what follows the first line, as 64 hexadecimal digits."""
    total = hashlib.sha256()
    file.seek(_HEAD)
    while piece := file.read(_PIECE):
        total.update(piece)
    return total.hexdigest().encode("ascii")
