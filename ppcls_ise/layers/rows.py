# SPDX-License-Identifier: Apache-2.0
"""What the public functions accept as a tensor, and unit rows."""

from typing import Any

import numpy as np
import paddle
from paddle.autograd import PyLayer


def as_rows(values: Any, dtype: Any = None) -> paddle.Tensor:
    """``values`` as a floating-point tensor, with its gradient if it is one already.

    Args:
        values: tensor, array or nested list.
        dtype: wanted type; by default, that of the values.
    """
    tensor = values if isinstance(values, paddle.Tensor) else paddle.to_tensor(values)
    return tensor if dtype is None or tensor.dtype == dtype else tensor.astype(dtype)


def host_labels(values: Any, rows: int, *, below: int | None = None) -> np.ndarray:
    """``values`` as an int64 array of labels [R]; [R, 1] and other integer types are taken too.

    A tensor on a device is waited for, once.

    Args:
        values: tensor, array or list.
        rows: R.
        below: C; labels have to be in 0 .. C-1.

    Raises:
        ValueError: not one label per row, or a label out of range (-1 is an outlier, which never
            takes part in a step).
    """
    labels = values.numpy() if isinstance(values, paddle.Tensor) else np.asarray(values)
    labels = labels.reshape(-1).astype(np.int64)
    if len(labels) != rows:
        raise ValueError(f"{rows} rows need as many labels, got {len(labels)}")
    if below is not None and rows and not 0 <= labels.min() <= labels.max() < below:
        raise ValueError(
            f"labels have to be in 0 .. {below - 1} (one prototype each), got "
            f"{labels.min()} .. {labels.max()}"
        )
    return labels


def upload(*arrays: np.ndarray) -> list[paddle.Tensor]:
    """Index arrays (int64, none of them empty) on the current device, by one transfer."""
    flat = paddle.to_tensor(np.concatenate([array.reshape(-1) for array in arrays]))
    parts = paddle.split(flat, [array.size for array in arrays]) if len(arrays) > 1 else [flat]
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


def unit_rows(rows: paddle.Tensor) -> paddle.Tensor:
    """``N(v) = v / max(|v|, 1e-12)`` of each row of [R, D], differentiable.

    On a CPU a fraction of the time of Paddle's own ``normalize``, most of all backward.
    """
    return unit_rows_and_lengths(rows)[0]


def unit_rows_and_lengths(rows: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """`unit_rows` and the divisors ``max(|v|, 1e-12)`` [R, 1], which pass no gradient on."""
    return _UnitRows.apply(rows)


def row_dots(one: paddle.Tensor, other: paddle.Tensor) -> paddle.Tensor:
    """``<a_r, b_r>`` of two [R, D]: [R, 1], without the [R, D] of their products."""
    pair = one.unsqueeze(1), other.unsqueeze(1)
    return paddle.matmul(*pair, transpose_y=True).squeeze(2)


class _UnitRows(PyLayer):
    @staticmethod
    def forward(ctx: Any, rows: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        length = row_dots(rows, rows).clip(min=1e-24).sqrt()
        unit = rows / length
        ctx.save_for_backward(unit, length)
        ctx.mark_non_differentiable(length)
        return unit, length

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor, _: paddle.Tensor) -> paddle.Tensor:
        """``(g - <g, u> u) / length``"""
        unit, length = ctx.saved_tensor()
        radial = unit * -row_dots(gradient, unit)
        return radial.add_(gradient).divide_(length)


def members_by_label(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of each label as a rectangle.

    Args:
        labels: [R] int64, R >= 1.

    Returns:
        present [P] int64, the different labels in ascending order; members [P, width] int64, the
        rows of each label in ascending order, shorter lines filled up with their first row (which
        changes neither minimum nor maximum); counts [P] int64, rows per label. O(R log R) time.
    """
    present, counts = np.unique(labels, return_counts=True)
    order = np.argsort(labels, kind="stable")
    place = np.arange(counts.max())
    place = np.where(place < counts[:, None], place, 0) + (np.cumsum(counts) - counts)[:, None]
    return present, order[place], counts


def least_similar(
    rows: paddle.Tensor, labels: paddle.Tensor, members: paddle.Tensor, prototypes: paddle.Tensor
) -> paddle.Tensor:
    """The row of each label with the smallest ``<x_r, m_y>``, the first one on ties: [P] int64.

    Args:
        rows: [R, D].
        labels: [R] int64 in 0 .. C-1.
        members: [P, width] int64, see `members_by_label`.
        prototypes: [C, D].
    """
    own = paddle.gather(prototypes, labels)
    similarity = paddle.gather(row_dots(rows, own), members.flatten())
    least = similarity.reshape(members.shape).argmin(axis=1, keepdim=True)
    return paddle.index_sample(members, least).squeeze(1)
