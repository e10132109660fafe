# SPDX-License-Identifier: Apache-2.0
"""Decoded and resized images on disk, so that later epochs decode nothing."""

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise import compat
from ppcls_ise.data.images import ImageReadError, read_image
from ppcls_ise.errors import DataError, shown
from ppcls_ise.utils.files import replacing

try:
    import fcntl
except ImportError:  # without it, processes that start together each build the file
    fcntl = None  # type: ignore[assignment]

_MAGIC = b"ppcls_ise images 1\n"
_END = struct.Struct(f"<Q32s{len(_MAGIC)}s")  # length and digest of the index, magic

# Path, size in bytes, time of the last change in ns: what tells that a file is still the same.
_Key = tuple[str, int, int]


class ImageCache:
    """Images of a list after the resize, as uint8 [N, H, W, 3] in one memory-mapped file.

    An image counts as long as path, size and time of its file are those that were cached and its
    pixels have the checksum that was written; otherwise `get` gives None and the caller reads the
    file. Building takes over what is still valid and replaces the file as a whole; processes wait
    for one another.

    The file: the pixels [N, H, W, 3], an index (JSON), and the length and digest of the index.

    Args:
        folder: for cache files; one per list of paths and resize.
        paths: N files.
        resize: options of ``ResizeImage``, with a ``size``.
        transform: decoded uint8 [h, w, 3] -> uint8 [H, W, 3]; that ``ResizeImage``.

    Cost: 3 N H W bytes of disk; `get` reads one image and stats one file.
    """

    def __init__(
        self,
        folder: str | Path,
        paths: Sequence[str],
        resize: dict[str, Any],
        transform: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.resize = dict(sorted(resize.items()))
        self._paths, self._transform = list(paths), transform
        listed = json.dumps([self.resize, self._paths]).encode()
        self.file = Path(folder) / f"{hashlib.blake2b(listed, digest_size=12).hexdigest()}.images"
        self._open()
        if self._stale():
            with _locked(self.file):
                self._open()  # another process may have built it meanwhile
                if self._stale():
                    self._build()
                    self._open()

    def get(self, index: int) -> np.ndarray | None:
        """Image ``index`` of the list, uint8 [H, W, 3] and writable; None if it is not cached."""
        row = self._rows.get(self._paths[index])
        if row is None or row[0] != _key(self._paths[index]):
            return None
        pixels = np.array(self._pixels[row[1]])
        return pixels if zlib.crc32(pixels.data) == row[2] else None

    def _stale(self) -> bool:
        """Whether a file that can be read is missing here; those that cannot are not cached."""
        keys = {path: _key(path) for path in self._paths}
        return any(
            key is not None and self._rows.get(path, self._unreadable.get(path, (None,)))[0] != key
            for path, key in keys.items()
        )

    def _open(self) -> None:
        """Map the file; no rows if there is none, or none that is whole."""
        self._rows: dict[str, tuple[_Key, int, int]] = {}
        self._unreadable: dict[str, tuple[_Key]] = {}
        self._pixels = np.zeros((0, 1, 1, 3), np.uint8)
        if not self.file.exists():
            return
        try:
            index = _read_index(self.file)
            if index["resize"] != self.resize:
                raise ValueError("it is of another resize")
            if index["shape"][0]:
                self._pixels = np.memmap(self.file, np.uint8, "r", 0, tuple(index["shape"]))
            for place, (*key, checksum) in enumerate(index["rows"]):
                self._rows[key[0]] = tuple(key), place, checksum
            self._unreadable = {key[0]: (tuple(key),) for key in index["unreadable"]}
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            self._rows, self._unreadable = {}, {}
            compat.logger().warning(
                f"the image cache {self.file} cannot be used and is made anew: {error}"
            )

    def _build(self) -> None:
        known = len(self._rows)
        compat.logger().info(
            f"decoding {len(self._paths)} images into the cache {self.file}"
            + (f", which holds {known} already" if known else "")
        )
        rows: list[tuple[Any, ...]] = []
        unreadable: list[_Key] = []
        shape: tuple[int, ...] = (1, 1, 3)
        with replacing(self.file) as scratch, scratch.open("wb") as stream:
            for index, path in enumerate(self._paths):
                key = _key(path)
                if key is None:
                    continue
                try:
                    image = self.get(index)
                    image = self._transform(read_image(path)) if image is None else image
                except ImageReadError:
                    unreadable.append(key)
                    continue
                image = np.ascontiguousarray(image)
                if image.dtype != np.uint8 or (rows and image.shape != shape):
                    raise DataError(
                        f"ResizeImage gives {image.dtype} {list(image.shape)} for {shown(path)}, "
                        "which "
                        "cannot be cached: leave out Global.image_cache"
                    )
                shape = image.shape
                stream.write(image.data)
                rows.append((*key, zlib.crc32(image.data)))
            content = {
                "resize": self.resize,
                "shape": [len(rows), *shape],
                "rows": rows,
                "unreadable": unreadable,
            }
            stream.write(_end_with_index(json.dumps(content).encode()))


def can_cache(op: dict[str, Any]) -> bool:
    """Whether an entry of ``transform_ops`` is a resize to one size."""
    options = op.get("ResizeImage") or {}
    return bool(options.get("size")) and not options.get("resize_short")


def _key(path: str) -> _Key | None:
    """None if there is no such file; whoever reads it will say so."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return path, state.st_size, state.st_mtime_ns


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=32).digest()


def _end_with_index(index: bytes) -> bytes:
    return index + _END.pack(len(index), _digest(index), _MAGIC)


def _read_index(file: Path) -> dict[str, Any]:
    """The index of a whole cache file.

    Raises:
        OSError, ValueError, KeyError, struct.error: it is none, torn or damaged.
    """
    with file.open("rb") as stream:
        total = stream.seek(0, os.SEEK_END)
        if total < _END.size:
            raise ValueError("it is too short")
        stream.seek(total - _END.size)
        length, digest, magic = _END.unpack(stream.read())
        if magic != _MAGIC or length > total - _END.size:
            raise ValueError("it does not end like one")
        stream.seek(total - _END.size - length)
        content = stream.read(length)
    if _digest(content) != digest:
        raise ValueError("its index is damaged")
    index = json.loads(content)
    if math.prod(index["shape"]) != total - _END.size - length:
        raise ValueError("its index is of another size")
    if len(index["rows"]) != index["shape"][0]:
        raise ValueError("its index is incomplete")
    return index


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as stream:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
