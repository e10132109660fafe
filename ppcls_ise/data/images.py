# SPDX-License-Identifier: Apache-2.0
"""Reading one image file, and which files count as images."""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from ppcls_ise.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# What Pillow's decoders raise on damaged files; OSError covers most of it, not all.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class ImageReadError(DataError):
    """An image file is missing, unreadable, damaged or not an image.

    Attributes:
        path: the file.
        reason: why it cannot be used, in words; None if ``path`` is a whole message already, which
            is how Paddle raises a loader worker's error again in the main process.
    """

    def __init__(self, path: str, reason: str | None = None) -> None:
        super().__init__(path, reason)  # both arguments, so that the error can be pickled
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        if self.reason is None:
            return self.path
        return f"cannot read image {self.path}: {self.reason}"


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode an image file completely.

    Args:
        path: the file. The format is recognized by content, not by suffix.

    Returns:
        uint8 [H, W, 3], RGB, writable. An alpha channel is dropped, gray is repeated, and an EXIF
        orientation is not applied (as in the reference implementation).

    Raises:
        ImageReadError: for a missing, empty, truncated, damaged or protected file, or one that
            is not an image.
    """
    with _opened(path) as image:
        return np.array(image.convert("RGB"))


def check_image_header(path: str | os.PathLike) -> None:
    """Open a file without decoding it.

    Raises:
        ImageReadError: it is missing, empty, protected, or does not begin like an image.
    """
    with _opened(path):
        pass


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """The opened image; whatever goes wrong inside becomes an `ImageReadError`."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise ImageReadError(path, "the file is empty")
            with Image.open(stream) as image:
                yield image
    except ImageReadError:
        raise
    except FileNotFoundError as error:
        raise ImageReadError(path, "the file does not exist") from error
    except PermissionError as error:
        raise ImageReadError(path, "permission denied") from error
    except Image.UnidentifiedImageError as error:
        raise ImageReadError(path, "the content is not an image that Pillow knows") from error
    except _DECODER_ERRORS as error:
        raise ImageReadError(path, f"{type(error).__name__}: {error}") from error


def is_image_name(name: str) -> bool:
    """Whether a base name has an image suffix and is not hidden (``._*`` files of macOS are)."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
