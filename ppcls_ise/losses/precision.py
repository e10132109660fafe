# SPDX-License-Identifier: Apache-2.0
"""Losses in float32, whatever automatic mixed precision would choose."""

import functools
from collections.abc import Callable
from typing import Any

import paddle

_SHORT = (paddle.float16, paddle.bfloat16)


def in_float32(loss: Callable[..., paddle.Tensor]) -> Callable[..., paddle.Tensor]:
    """Have ``loss`` compute in float32 (or float64), with its inputs made that.

    PaddleClas computes the losses inside of the mixed precision of the network. There products are
    rounded to 3 digits before a temperature of 0.05 spreads them.
    """

    @functools.wraps(loss)
    def guarded(*arguments: Any, **options: Any) -> paddle.Tensor:
        with paddle.amp.auto_cast(enable=False):
            return loss(*map(_long, arguments), **options)

    return guarded


def _long(value: Any) -> Any:
    if isinstance(value, paddle.Tensor) and value.dtype in _SHORT:
        return value.astype("float32")
    return value
