# SPDX-License-Identifier: Apache-2.0
"""Images that are probably no crops of people, by cheap statistics. Nothing is ever removed."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from ppcls_ise.data.images import ImageReadError, image_size, read_image

# More images than these are looked at in part, evenly spread: a header costs about 0.1 ms, a
# decoded crop about 1 ms.
_MOST_HEADERS, _MOST_PIXELS, _MOST_ROWS = 100_000, 10_000, 1_000
_THREADS = 8
# A shape is odd if it would be stretched by more than this to fit the network, or lies where
# people stand.
_STRETCH = 3.0
_ENLARGED = 5.0
# Frames of cameras, as (long, short) sides: crops are seldom exactly of these sizes.
_FRAMES = frozenset(
    {(640, 480), (704, 576), (720, 576), (800, 600), (1024, 768), (1280, 720), (1280, 960),
     (1920, 1080), (2048, 1536), (2560, 1440), (2592, 1944), (3840, 2160)}
)  # fmt: skip
_FRAME_PIXELS = 300_000  # a picture that is wider than tall and has as many is no crop either
# Deviation of the Laplacian relative to that of the gray values at 128 x 64; figures of real crops
# are in docs/en/own_data.md.
_BLURRED, _EVEN = 0.1, 2.0
_SIZE = (64, 128)

FRAME, WIDE, NARROW = "a whole frame?", "wider than tall", "far from the shape of a person"
SMALL, BLURRED, EVEN = "very small", "very blurred", "of one color"
ODD_SHAPES = (FRAME, WIDE, NARROW)


@dataclass(frozen=True)
class Look:
    """What was found of M images that were looked at.

    Attributes:
        rows: int64 [M], ascending, in the list of images.
        sizes: int64 [M, 2], height and width as shown; 0 where it cannot be read.
        oddities: row -> what is odd.
    """

    rows: np.ndarray
    sizes: np.ndarray
    oddities: dict[int, str]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(self.oddities.values()).most_common())

    @property
    def share_of_odd_shapes(self) -> float:
        odd = sum(self.counts.get(kind, 0) for kind in ODD_SHAPES)
        return odd / max(1, int((self.sizes[:, 0] > 0).sum()))

    def exchanged(self, image_shape: Sequence[int]) -> bool:
        """Whether ``image_shape`` lies and most images stand."""
        known = self.sizes[self.sizes[:, 0] > 0]
        lies = image_shape[1] < image_shape[2]
        return lies and bool(len(known)) and bool((known[:, 0] > known[:, 1]).mean() > 0.5)


def look_at(
    paths: Sequence[str],
    image_shape: Sequence[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Look:
    """Hold sizes (from headers) and sharpness (of crops of the right shape) against what people
    look like.

    Odd are images that are wider than tall where the network's are not, a shape that is stretched
    more than threefold, sizes of whole frames, those enlarged more than fivefold, and without
    detail. Unreadable images are passed over.

    Args:
        paths: N images; of more than 100,000 an evenly spread part is looked at, and of more than
            10,000 crops.
        image_shape: [3, height, width] of the network.
        progress: called as ``progress(done, total)``.
    """
    rows = _spread(len(paths), _MOST_HEADERS)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        chosen = (paths[row] for row in rows)
        sizes = np.array(list(pool.map(_size, chosen)), dtype=np.int64).reshape(-1, 2)
        oddities = {}
        for row, (height, width) in zip(rows.tolist(), sizes.tolist(), strict=True):
            if height and (kind := odd_size(height, width, image_shape)):
                oddities[row] = kind
        crops = [row for row, size in zip(rows, sizes, strict=True) if size[0]]
        crops = [int(row) for row in crops if oddities.get(int(row)) not in ODD_SHAPES]
        crops = [crops[place] for place in _spread(len(crops), _MOST_PIXELS)]
        details = pool.map(_detail, (paths[row] for row in crops))
        for done, (row, kind) in enumerate(zip(crops, details, strict=True), start=1):
            if kind:
                oddities.setdefault(row, kind)
            progress(done, len(crops))
    return Look(rows, sizes, dict(sorted(oddities.items())))


def odd_size(height: int, width: int, image_shape: Sequence[int]) -> str:
    """What is odd about the size of an image, or the empty text."""
    _, tall, wide = image_shape
    if (max(height, width), min(height, width)) in _FRAMES:
        return FRAME
    if tall > wide and width > height:
        return FRAME if height * width >= _FRAME_PIXELS else WIDE
    stretch = (height / width) / (tall / wide)
    if max(stretch, 1 / stretch) > _STRETCH:
        return NARROW
    if max(tall / height, wide / width) > _ENLARGED:
        return SMALL
    return ""


def odd_detail(pixels: np.ndarray) -> str:
    """What is odd about uint8 [H, W, 3], or the empty text."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    gray = cv2.resize(gray, _SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
    spread = float(gray.std())
    if spread < _EVEN:
        return EVEN
    return BLURRED if cv2.Laplacian(gray, cv2.CV_32F).std() / spread < _BLURRED else ""


def far_rows(values: np.ndarray) -> np.ndarray:
    """Images whose features are far from those of all others.

    An image's distance is the 10 % quantile of its squared distances to 1,000 evenly spread rows
    (all, if there are fewer). Far lies beyond the upper quartile of these by more than 3
    interquartile ranges (Tukey, "Exploratory Data Analysis", 1977).

    Args:
        values: [M, D] unit rows.

    Returns:
        int64, ascending; none of fewer than 20 images. Of more than 100,000 images an evenly
        spread part is looked at. O(M D) time, up to 10^5 * 1,000 * D multiplications.
    """
    if len(values) < 20:
        return np.empty(0, np.int64)
    others = values[_spread(len(values), _MOST_ROWS)]
    rows = _spread(len(values), _MOST_HEADERS)
    distances = np.empty(len(rows))
    for first in range(0, len(rows), _MOST_ROWS):
        block = slice(first, first + _MOST_ROWS)
        products = values[rows[block]] @ others.T
        distances[block] = np.quantile(2.0 - 2.0 * products, 0.1, axis=1)
    lower, upper = np.percentile(distances, [25, 75])
    return rows[distances > upper + 3.0 * (upper - lower) + 1e-6]


def _spread(count: int, most: int) -> np.ndarray:
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def _size(path: str) -> tuple[int, int]:
    try:
        return image_size(path)
    except ImageReadError:
        return 0, 0


def _detail(path: str) -> str:
    try:
        return odd_detail(read_image(path))
    except ImageReadError:
        return ""


def describe(look: Look, total: int) -> str:
    """``12 of 40 images look like no crops of people: 10 wider than tall, 2 very small``."""
    part = "" if len(look.rows) == total else f" that were looked at ({total} in all)"
    kinds = ", ".join(f"{count} {kind}" for kind, count in look.counts.items())
    return (
        f"{len(look.oddities)} of {len(look.rows)} images{part} look like no crops of people: "
        f"{kinds}"
    )
