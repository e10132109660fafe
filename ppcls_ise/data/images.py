# SPDX-License-Identifier: Apache-2.0
"""Reading one image file, and which files count as images."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from ppcls_ise.errors import DataError, shown

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_PIXELS = 8192 * 8192
# Nothing else is tried: Pillow would hand PostScript, which is a program, to Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112  # EXIF tag
# Its value -> what turns the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_LYING = (5, 6, 7, 8)  # whose height and width are exchanged


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
        return f"cannot read image {shown(self.path)}: {self.reason}"


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode an image file completely.

    Args:
        path: the file. The format (JPEG, PNG, BMP, WebP, TIFF, GIF or PNM) is recognized by
            content, not by suffix.

    Returns:
        uint8 [H, W, 3], RGB, writable. An alpha channel is dropped, gray is repeated, of 16 bits
        the upper 8 are kept, and an EXIF orientation is applied, so that the network sees what a
        viewer shows. (The reference implementation ignores it; the published data sets have none.)

    Raises:
        ImageReadError: for a missing, empty, truncated, damaged or protected file, one that is not
            an image, has more than ``MAX_PIXELS``, or values without a known range (32 bits).

    Memory: about 10 bytes per pixel while decoding.
    """
    with _opened(path) as image:
        return _rgb(_upright(image))


def check_image_header(path: str | os.PathLike) -> None:
    """Open a file without decoding it.

    Raises:
        ImageReadError: it is missing, empty, protected, too large, or does not begin like an
            image.
    """
    with _opened(path):
        pass


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of an image as `read_image` gives it, from its header.

    Raises:
        ImageReadError: as `check_image_header`.
    """
    with _opened(path) as image:
        width, height = image.size
        try:
            lies = image.getexif().get(_ORIENTATION, 1) in _LYING
        except Exception:  # a damaged note, as in `_upright`
            lies = False
    return (width, height) if lies else (height, width)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # the pixels are whole, and a damaged note beside them says nothing
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _rgb(image: Image.Image) -> np.ndarray:
    # Pillow would clip more than 8 bits to white. Old ones call 16-bit PNG and PNM "I".
    if image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format in ("PNG", "PPM")):
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per value, which have no known white; store it with 8 or 16")
    return np.array(image.convert("RGB"))


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """The opened image; whatever goes wrong inside becomes an `ImageReadError`."""
    path = os.fspath(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageReadError(path, "it is no regular file")
            if status.st_size == 0:
                raise ImageReadError(path, "the file is empty")
            with Image.open(stream, formats=_FORMATS) as image:
                _require_decodable_size(path, *image.size)
                yield image
    except ImageReadError:
        raise
    except FileNotFoundError as error:
        raise ImageReadError(path, "the file does not exist") from error
    except PermissionError as error:
        raise ImageReadError(path, "permission denied") from error
    except UnidentifiedImageError as error:
        reason = f"the content is not an image ({', '.join(_FORMATS)})"
        raise ImageReadError(path, reason) from error
    except Image.DecompressionBombError as error:
        raise ImageReadError(path, f"too large: {error}; {_LIMIT}") from error
    except Exception as error:  # there is no list of what decoders raise on damaged files
        raise ImageReadError(path, f"{type(error).__name__}: {error}") from error


_LIMIT = f"at most {MAX_PIXELS:,} pixels are decoded. Cut the persons out, or shrink it"


def _require_decodable_size(path: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageReadError(
            path, f"it has {width} x {height} = {width * height:,} pixels; {_LIMIT}"
        )


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer


def is_image_name(name: str) -> bool:
    """Whether a base name has an image suffix and is not hidden (``._*`` files of macOS are)."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
