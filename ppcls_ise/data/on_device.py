# SPDX-License-Identifier: Apache-2.0
"""Normalization and random erasing on the device: loaders then hand over uint8, a quarter."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle

from ppcls_ise.errors import ConfigError

RECTANGLE = 4  # values that a training label then ends with: top, left, bottom, right


class _Canvas(np.ndarray):
    """An image without pixels that notes where something is written."""

    region: tuple[slice, ...] = (slice(0, 0), slice(0, 0))

    def __setitem__(self, region: Any, values: Any) -> None:
        self.region = region


class OnDevice:
    """What the device does with uint8 images: ``NormalizeImage``, and perhaps ``RandomErasing``.

    The same float32 values as PaddleClas's operators on the host: the same three operations in
    the same order, and erased rectangles drawn by its own code from the same random numbers.

    Args:
        ops: the operators of a ``transform_ops`` list, built.

    Attributes:
        host_ops: those that are left to the host; they have to give uint8 [H, W, 3].

    Raises:
        ConfigError: the list does not end with these two.
    """

    def __init__(self, ops: Sequence[Any]) -> None:
        names = [type(op).__name__ for op in ops]
        count = 2 if names[-1:] == ["RandomErasing"] else 1
        if names[-count:] not in (["NormalizeImage"], ["NormalizeImage", "RandomErasing"]):
            raise ConfigError(
                "Global.normalize_on_device needs transform_ops that end with NormalizeImage, or "
                f"with NormalizeImage and RandomErasing; got {', '.join(names) or 'none'}"
            )
        self.host_ops, (normalize, *erasing) = ops[:-count], ops[-count:]
        self._erasing = erasing[0] if erasing else None
        if self._erasing is not None and self._erasing.get_pixels._mode != "const":
            raise ConfigError(
                "Global.normalize_on_device needs RandomErasing.mode const (noise is the host's)"
            )
        if normalize.channel_num != 3 or normalize.output_dtype != "float32":
            raise ConfigError(
                "Global.normalize_on_device needs NormalizeImage with 3 channels, in float32"
            )
        self._scale = float(normalize.scale)
        self._mean, self._std = normalize.mean.reshape(3), normalize.std.reshape(3)

    @property
    def erases(self) -> bool:
        """Whether labels have to end with a rectangle."""
        return self._erasing is not None

    def rectangle(self, height: int, width: int) -> np.ndarray:
        """Draw what is erased of an image: top, left, bottom, right, int64 [4]; often nothing."""
        assert self._erasing is not None, "only where `erases`"
        canvas = np.broadcast_to(np.uint8(0), (height, width, 3)).view(_Canvas)
        rows, columns, *_ = self._erasing(canvas).region
        return np.array([rows.start, columns.start, rows.stop, columns.stop], np.int64)

    @paddle.no_grad()
    def __call__(self, images: paddle.Tensor, labels: paddle.Tensor | None = None) -> paddle.Tensor:
        """uint8 [B, 3, H, W] -> float32 of the same shape.

        Args:
            labels: [B, k] int64 that end with a rectangle; needed where something is erased.
        """
        mean, std = _channels(self._mean), _channels(self._std)
        images = (images.astype("float32") * self._scale - mean) / std
        if self._erasing is None or labels is None:
            return images
        top, left, bottom, right = labels[:, -RECTANGLE:].reshape([-1, 4, 1, 1, 1]).unbind(axis=1)
        rows = paddle.arange(images.shape[2]).reshape([1, 1, -1, 1])
        columns = paddle.arange(images.shape[3]).reshape([1, 1, 1, -1])
        erased = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        return paddle.where(erased, _channels(self._erasing.get_pixels._mean), images)


def _channels(values: Sequence[float]) -> paddle.Tensor:
    """[1, 3, 1, 1] float32, made on the device: nothing is transferred."""
    return paddle.concat([paddle.full([1, 1, 1, 1], float(v), "float32") for v in values], axis=1)
