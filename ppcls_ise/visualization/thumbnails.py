# SPDX-License-Identifier: Apache-2.0
"""Small pictures inside of a page, each once, within a number of bytes."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from ppcls_ise.data.images import ImageReadError, read_image

HEIGHT, WIDTH = 80, 80
_QUALITY = 72
_BYTES = 12_000_000  # in base64, of all


def jpeg_uri(path: str, *, height: int = HEIGHT, width: int = WIDTH, quality: int = 85) -> str:
    """The image as a data URI, reduced to fit ``width`` x ``height``.

    Raises:
        ImageReadError: it cannot be read.
    """
    image = Image.fromarray(read_image(path))
    image.thumbnail((width, height))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


class Thumbnails:
    """The pictures of a page, by number, so that one that is shown twice is there once.

    Args:
        place: where an image is now, for images that were moved.
        most_bytes: of all pictures; what comes later gets none.

    Attributes:
        uris: of the pictures that there are.
        missing: paths of images that could not be read, and why.
        left_out: images without a picture for lack of room.
    """

    def __init__(
        self, place: Callable[[str], str] = lambda path: path, most_bytes: int = _BYTES
    ) -> None:
        self.uris: list[str] = []
        self.missing: dict[str, str] = {}
        self.left_out = 0
        self._place = place
        self._left = most_bytes
        self._numbers: dict[str, int] = {}

    def number(self, path: str) -> int:
        """Where the picture of an image is in ``uris``; -1 if it has none."""
        if path not in self._numbers:
            self._numbers[path] = self._add(path)
        return self._numbers[path]

    def _add(self, path: str) -> int:
        if self._left <= 0:
            self.left_out += 1
            return -1
        try:
            uri = jpeg_uri(self._place(path), quality=_QUALITY)
        except ImageReadError as error:
            self.missing[path] = str(error)
            return -1
        self._left -= len(uri)
        self.uris.append(uri)
        return len(self.uris) - 1


def moved(root: str, images: str | None) -> Callable[[str], str]:
    """Where images of a data set below ``root`` are, if that folder is now ``images``."""
    if images is None:
        return lambda path: path

    def place(path: str) -> str:
        try:
            return str(Path(images) / Path(path).relative_to(root))
        except ValueError:
            return path

    return place
