# SPDX-License-Identifier: Apache-2.0
"""What the public functions accept as a tensor."""

from typing import Any

import paddle


def as_rows(values: Any, dtype: Any = None) -> paddle.Tensor:
    """``values`` as a floating-point tensor, with its gradient if it is one already.

    Args:
        values: tensor, array or nested list.
        dtype: wanted type; by default, that of the values.
    """
    tensor = values if isinstance(values, paddle.Tensor) else paddle.to_tensor(values)
    return tensor if dtype is None or tensor.dtype == dtype else tensor.astype(dtype)


def as_labels(values: Any, rows: int, *, below: int | None = None) -> paddle.Tensor:
    """``values`` as int64 labels [R]; [R, 1] and other integer types are taken too.

    Args:
        values: tensor, array or list.
        rows: R.
        below: C; labels have to be in 0 .. C-1.

    Raises:
        ValueError: not one label per row, or a label out of range (-1 is an outlier, which never
            takes part in a step).
    """
    labels = as_rows(values).detach().reshape([-1]).astype("int64")
    if labels.shape[0] != rows:
        raise ValueError(f"{rows} rows need as many labels, got {labels.shape[0]}")
    if below is not None and rows:
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= below:
            raise ValueError(
                f"labels have to be in 0 .. {below - 1} (one prototype each), got "
                f"{lowest} .. {highest}"
            )
    return labels
