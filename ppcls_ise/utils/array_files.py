# SPDX-License-Identifier: Apache-2.0
"""Files of arrays: our own (safetensors with a checksum) and numpy's, read within bounds.

A tree consists of tables with texts as keys, lists, numbers, texts, None and arrays of numbers.
Its file is a plain ``.safetensors``: the arrays under their places in the tree, the rest as JSON in
the array ``tree``, and in the header what kind of file it is and the SHA-256 of all arrays. Nothing
in such a file is executed, and reading takes the memory that the file takes on the disk.
"""

import errno
import hashlib
import io
import json
import math
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ppcls_ise.errors import ReIDError, shown
from ppcls_ise.utils.files import reading, replacing

_TREE = "tree"
_ARRAY = "array"
_TABLE = "table"
# A .npz may be compressed: features hardly are, names of images are to a tenth.
_EXPANSION, _ALWAYS = 10, 1 << 20
_OS_ERROR = re.compile(r"os error (\d+)")


def write_tree(path: str | Path, tree: Mapping[str, Any], *, kind: str) -> None:
    """Write ``tree`` atomically; while it is written it is in memory twice.

    Args:
        kind: what the file is and the number of its format, e.g. ``ppcls_ise gallery 2``.

    Raises:
        OSError: it cannot be written there; a file of that name is as it was.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_flatten(tree, arrays, ())).encode("ascii")
    arrays[_TREE] = np.frombuffer(text, np.uint8)
    with replacing(path) as scratch:
        try:
            save_file(arrays, scratch, {"format": kind, "sha256": _digest(arrays)})
        except SafetensorError as error:  # a full disk, say
            number = int(match[1]) if (match := _OS_ERROR.search(str(error))) else errno.EIO
            raise OSError(number, os.strerror(number), str(path)) from error


def read_tree(path: str | Path, *, kind: str, error: type[ReIDError]) -> dict[str, Any]:
    """Read what `write_tree` wrote, checked against its checksum.

    Raises:
        error: it is damaged, or another kind of file.
        FileNotFoundError, PermissionError: it cannot be opened.
    """
    with reading(path, error, f"is damaged, or no {kind.split()[1]} of this version"):
        opened: Any = safe_open  # its types are missing
        with opened(str(path), "numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != kind:
                raise ValueError(f"it is {header.get('format', 'something else')!r}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if header.get("sha256") != _digest(arrays):
            raise error(f"{shown(path)} is damaged: its checksum is wrong")
        tree = _restore(json.loads(arrays.pop(_TREE).tobytes()), arrays)
        if not isinstance(tree, dict):
            raise ValueError("it holds no table")
    return tree


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}\n{array.dtype} {array.shape}\n".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _flatten(value: Any, arrays: dict[str, np.ndarray], place: tuple[str, ...]) -> Any:
    """``value`` as JSON, its arrays put into ``arrays`` under their places."""
    if isinstance(value, np.ndarray):
        name = "/".join(("", *place))
        while name in arrays:  # a key may hold a slash
            name += "'"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {_TABLE: {key: _flatten(v, arrays, (*place, key)) for key, v in value.items()}}
    if isinstance(value, list | tuple):
        return [_flatten(item, arrays, (*place, str(i))) for i, item in enumerate(value)]
    return value


def _restore(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_restore(item, arrays) for item in value]
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: _restore(item, arrays) for key, item in value[_TABLE].items()}
    return value


def read_numpy(path: str | Path, *, error: type[ReIDError], what: str) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` by name, or that of a ``.npy`` under the name "".

    What a file announces is compared with its size before memory is taken; a compressed file may
    hold ten times its size. Objects (pickles) are refused.

    Args:
        what: what such a file should be, for the message: "is no ...".

    Raises:
        error: it is something else.
        FileNotFoundError, PermissionError: it cannot be opened.
    """
    with reading(path, error, what), Path(path).open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if not zipfile.is_zipfile(file):
            file.seek(0)
            return {"": _array(file.read())}
        with zipfile.ZipFile(file) as content:
            members = content.infolist()
            if sum(member.file_size for member in members) > _EXPANSION * size + _ALWAYS:
                raise ValueError(f"it announces more than {_EXPANSION} times its size")
            return {
                member.filename.removesuffix(".npy"): _array(content.read(member))
                for member in members
            }


def _array(data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    formats: Any = np.lib.format  # its types are missing
    version = formats.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is of version {version} of numpy's format")
    read = formats.read_array_header_1_0 if version[0] == 1 else formats.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    if dtype.hasobject or dtype.fields is not None:
        raise ValueError("it holds something else than numbers and texts")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"an array of shape {shape} does not have {len(data)} bytes")
    flat = np.frombuffer(data, np.uint8, offset=stream.tell()).copy()
    values = flat.view(dtype) if dtype.itemsize else np.zeros(math.prod(shape), dtype)
    return values.reshape(shape, order="F" if is_fortran else "C")
