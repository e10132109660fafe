# SPDX-License-Identifier: Apache-2.0
"""Computing in float32 inside automatic mixed precision."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paddle

_HALVES = (paddle.float16, paddle.bfloat16)


@contextmanager
def float32() -> Iterator[Callable[[Any], Any]]:
    """Turn automatic mixed precision off; yields a function that brings half-precision tensors to
    float32 (whatever else it gets stays as it is, float64 too).

    PaddleClas calls heads and losses inside ``auto_cast``, where matrix products are computed in
    half precision whatever their operands; cosines over a temperature of 0.05 need more::

        with float32() as full:
            logits = paddle.matmul(full(rows), full(prototypes), transpose_y=True)
    """
    with paddle.amp.auto_cast(enable=False):
        yield _full


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, computed inside `float32` on arguments brought to float32."""

    @functools.wraps(function)
    def computed(*args: Any, **options: Any) -> Any:
        with float32() as full:
            return function(*map(full, args), **{k: full(v) for k, v in options.items()})

    return computed


def _full(value: Any) -> Any:
    if isinstance(value, paddle.Tensor) and value.dtype in _HALVES:
        return value.astype("float32")
    return value
