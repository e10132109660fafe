# SPDX-License-Identifier: Apache-2.0
"""PyTorch's checkpoint files, read and written without PyTorch and without running anything.

Both of its formats are pickles that name tensors by (storage, offset, size, stride), with the
storages beside them: as members of a zip file (PyTorch 1.6 and later), or at the end of the file.
"""

import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise.errors import WeightsError
from ppcls_ise.utils.files import replacing
from ppcls_ise.weights.pickled_arrays import (
    DamagedPickle,
    NamedFunction,
    PickledArrays,
    RefusedPickle,
)
from ppcls_ise.weights.safe_pickle import PickleMachine

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_BFLOAT16 = "BFloat16"
_STORAGES = {
    "Double": "<f8",
    "Float": "<f4",
    "Half": "<f2",
    _BFLOAT16: "<u2",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}
_NO_ZIP = (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    struct.error,
)


@dataclass(frozen=True)
class _Storage:
    """A run of numbers that tensors are cut from."""

    kind: str
    key: str
    count: int

    @property
    def size(self) -> int:
        return self.count * np.dtype(_STORAGES[self.kind]).itemsize


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self, data: bytes) -> np.ndarray:
        """The values; half precision as float32."""
        values = np.frombuffer(data, _STORAGES[self.storage.kind])
        if self.storage.kind == _BFLOAT16:  # the upper half of a float32
            values = (values.astype("<u4") << 16).view("<f4")
        elif self.storage.kind == "Half":
            values = values.astype(np.float32)
        strides = [step * values.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)
        return np.array(view, dtype=values.dtype.newbyteorder("="), order="C")


class _TorchParts(PickledArrays):
    """The functions that a checkpoint names."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.storages: dict[str, _Storage] = {}

    def steps(self) -> dict[tuple[str, str], Callable[..., Any] | None]:
        return {**super().steps(), **_STEPS}

    def persistent(self, key: Any) -> _Storage:
        if type(key) is not tuple or len(key) not in (5, 6) or key[0] != "storage" or any(key[5:]):
            raise RefusedPickle("it keeps something else than numbers outside the pickle")
        function, name, count = key[1], key[2], key[4]
        kind = function.name[6:-7] if type(function) is NamedFunction else ""
        if kind not in _STORAGES or type(name) is not str or type(count) is not int or count < 0:
            raise RefusedPickle("it keeps numbers of an unknown kind outside the pickle")
        storage = _Storage(kind, name, count)
        if self.storages.setdefault(name, storage) != storage:
            raise RefusedPickle(f"it describes its storage {name!r} in two ways")
        return storage

    def set_state(self, target: Any, state: Any) -> None:
        """Attributes of tables and records (versions of layers, say) are passed over."""
        if type(target) is not dict:
            super().set_state(target, state)

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Tensor:
        if type(storage) is not _Storage or type(shape) is not tuple or type(stride) is not tuple:
            raise RefusedPickle("a tensor is described in an unknown way")
        numbers = (offset, *shape, *stride)
        if len(shape) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise RefusedPickle("a tensor's shape is no list of lengths")
        count = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if count > storage.count or (count and last >= storage.count):
            raise RefusedPickle("a tensor is larger than its storage")
        return _Tensor(storage, offset, shape, stride)

    def _parameter(self, data: Any, *_: Any) -> Any:
        return data

    def _record(self, *_: Any) -> dict:
        return {}


_STEPS: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("torch._utils", "_rebuild_tensor_v2"): _TorchParts._tensor,
    ("torch._utils", "_rebuild_parameter"): _TorchParts._parameter,
    ("torch", "Size"): PickledArrays._tuple,
    ("argparse", "Namespace"): _TorchParts._record,  # a training's options, which are not used
    **{("torch", f"{kind}Storage"): None for kind in _STORAGES},
}


def read_torch_file(path: str | Path) -> tuple[Any, Callable[[Any], np.ndarray | None]]:
    """Read a checkpoint's content.

    Returns:
        The content with stand-ins for its tensors, and a function that gives a stand-in's values
        (None for anything else), reading the file again. Memory: one tensor at a time.

    Raises:
        WeightsError: no checkpoint, a damaged one, or one that asks for code; names the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        return _read_zip(path) if is_zip else _read_legacy(path)
    except (RefusedPickle, DamagedPickle, *_NO_ZIP) as error:
        raise WeightsError(
            f"{path} is no PyTorch checkpoint that can be read safely ({error})"
        ) from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_zip(path: Path) -> tuple[Any, Callable[[Any], np.ndarray | None]]:
    with zipfile.ZipFile(path) as archive:
        roots = [n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(roots) != 1:
            raise DamagedPickle("it holds no data.pkl")
        byte_order = f"{roots[0]}byteorder"
        if byte_order in archive.namelist() and _member(archive, byte_order) != b"little":
            raise RefusedPickle("its numbers are not little-endian")
        data = _member(archive, f"{roots[0]}data.pkl")
        content = PickleMachine(io.BytesIO(data), len(data), _TorchParts(len(data))).run()

    def values(stand_in: Any) -> np.ndarray | None:
        if type(stand_in) is not _Tensor:
            return None
        storage = stand_in.storage
        try:
            with zipfile.ZipFile(path) as archive:
                data = _member(archive, f"{roots[0]}data/{storage.key}")
        except _NO_ZIP as error:
            raise WeightsError(f"{path} is damaged ({error})") from error
        if len(data) != storage.size:
            raise WeightsError(
                f"{path} is damaged (storage {storage.key} has {len(data)} bytes instead of "
                f"{storage.size})"
            )
        return stand_in.array(data)

    return content, values


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise RefusedPickle(f"its member {name} is compressed, which PyTorch never does")
    return archive.read(info)


def _read_legacy(path: Path) -> tuple[Any, Callable[[Any], np.ndarray | None]]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        parts = _TorchParts(size)

        def part() -> Any:
            return PickleMachine(file, size - file.tell(), parts).run()

        if part() != _LEGACY_MAGIC:
            raise DamagedPickle("it has neither of PyTorch's formats")
        version, system = part(), part()
        if version != 1001 or type(system) is not dict or not system.get("little_endian"):
            raise DamagedPickle("it is of an unknown version of PyTorch's old format")
        content, keys = part(), part()
        if type(keys) is not list:
            raise DamagedPickle("it does not list its storages")
        places: dict[str, int] = {}
        for key in keys:
            storage = parts.storages.get(key) if type(key) is str else None
            count = struct.unpack("<q", file.read(8))[0]
            if storage is None or count != storage.count or file.tell() + storage.size > size:
                raise DamagedPickle(f"its storage {key!r} is not what it announces")
            places[key] = file.tell()
            file.seek(storage.size, os.SEEK_CUR)

    def values(stand_in: Any) -> np.ndarray | None:
        if type(stand_in) is not _Tensor:
            return None
        storage = stand_in.storage
        if storage.key not in places:
            raise WeightsError(f"{path} is damaged (its storage {storage.key} is missing)")
        with path.open("rb") as file:
            file.seek(places[storage.key])
            return stand_in.array(file.read(storage.size))

    return content, values


def write_torch_file(path: str | Path, state: Mapping[str, np.ndarray]) -> None:
    """Write ``{"state_dict": ...}`` in PyTorch's zip format, atomically.

    Args:
        state: name -> float32 or int64 array.

    Raises:
        OSError: it cannot be written there.
    """
    with replacing(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)  # without the time of day

        add("data.pkl", _pickle(state))
        add("byteorder", b"little")
        for i, value in enumerate(state.values()):
            add(f"data/{i}", value.tobytes())
        add("version", b"3\n")


def _pickle(state: Mapping[str, np.ndarray]) -> bytes:
    """The pickle of ``{"state_dict": OrderedDict(...)}``."""
    table = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    content = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + _text("state_dict") + table + pickle.MARK
    for i, (name, value) in enumerate(state.items()):
        kind = {"float32": "Float", "int64": "Long"}[value.dtype.name]
        strides = [step // value.itemsize for step in np.asarray(value, order="C").strides]
        storage = (
            _text("storage"),
            _global("torch", f"{kind}Storage"),
            _text(str(i)),
            _text("cpu"),
            _number(value.size),
        )
        content += _text(name) + _global("torch._utils", "_rebuild_tensor_v2") + pickle.MARK
        content += _tuple(storage) + pickle.BINPERSID + _number(0)
        content += _tuple(map(_number, value.shape)) + _tuple(map(_number, strides))
        content += pickle.NEWFALSE + table + pickle.TUPLE + pickle.REDUCE
    return content + pickle.SETITEMS + pickle.SETITEM + pickle.STOP


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode("ascii")


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _tuple(items: Any) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE
