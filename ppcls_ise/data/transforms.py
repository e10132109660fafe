# SPDX-License-Identifier: Apache-2.0
"""Preprocessing operators that PaddleClas lacks.

The training recipe is resize (bicubic, Pillow), flip, pad and crop, normalize, random erasing.
PaddleClas's ``ResizeImage`` (``backend: pil``, ``interpolation: bicubic``), ``RandFlipImage``,
``NormalizeImage`` (``order: ''``) and ``RandomErasing`` (with ``mean: [0.485, 0.456, 0.406]``) do
exactly what the recipe asks for in all supported versions; its crops do not: ``Pad`` wants a
Pillow image and ``RandCropImageV2`` may cut one pixel beyond the border.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ppcls_ise.errors import ConfigError
from ppcls_ise.utils.components import register


@contextmanager
def seeded_generators(*key: int) -> Iterator[None]:
    """Seed Python's and NumPy's global generators with ``key``, and put them back afterwards.

    PaddleClas's operators draw from the global generators, so these cannot be passed in.
    """
    words = np.random.SeedSequence(key).generate_state(8)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(int.from_bytes(words.tobytes(), "little"))
    np.random.seed(words)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


@register("transform")
class RandomPadCrop:
    """Pad all four sides with a constant, then cut a window at a uniformly random position.

    Args:
        padding: pixels added on each side.
        fill: value of the added pixels (0 is black), before normalization.
        size: window as ``[width, height]``, the order of ``ResizeImage``; ``None`` keeps the size
            of the incoming image, so that there are ``(2 * padding + 1) ** 2`` positions.

    The position is drawn from Python's global generator, as by PaddleClas's operators.

    Raises:
        ConfigError: negative padding, or (when called) a window larger than the padded image.
    """

    def __init__(self, padding: int = 10, fill: int = 0, size: Sequence[int] | None = None) -> None:
        if padding < 0:
            raise ConfigError(f"RandomPadCrop.padding must be at least 0, got {padding}")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ConfigError(f"RandomPadCrop.size must be [width, height], got {size}")
        self.padding = padding
        self.fill = fill
        self.size = size

    def __call__(self, img: np.ndarray) -> np.ndarray:
        """uint8 or float [H, W, C] -> the same type [h, w, C], a new array."""
        height, width = img.shape[:2]
        crop_width, crop_height = self.size or (width, height)
        rows = height + 2 * self.padding - crop_height
        columns = width + 2 * self.padding - crop_width
        if rows < 0 or columns < 0:
            raise ConfigError(
                f"RandomPadCrop.size [{crop_width}, {crop_height}] (width, height) does not fit "
                f"into an image of {width} x {height} with {self.padding} pixels of padding; "
                "put ResizeImage before it or reduce the size"
            )
        top = random.randint(0, rows)
        left = random.randint(0, columns)
        margin = (self.padding, self.padding)
        padded = np.pad(img, (margin, margin, (0, 0)), constant_values=self.fill)
        return np.ascontiguousarray(padded[top : top + crop_height, left : left + crop_width])
