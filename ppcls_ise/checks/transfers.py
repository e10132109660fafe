# SPDX-License-Identifier: Apache-2.0
"""Counting what makes the processor wait for the device."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import paddle

# Reading a tensor's values, and operations whose result's size depends on values.
_TO_HOST = "numpy item tolist __array__ __bool__ __float__ __int__ __index__".split()
_VALUE_SIZED = ("nonzero", "unique", "masked_select")


@contextmanager
def transfers() -> Iterator[list[str]]:
    """Collect the blocking transfers between host and device made inside, each as ``to host by
    NAME`` or ``to device by NAME``.

    Counted on any device, a CPU too, by wrapping Paddle's functions: reading a tensor's values
    (also as a truth value), results whose size depends on values, and tensors made of host values.
    What Paddle does inside its C++ code, and its optimizers' learning rate, is not seen.
    """
    found: list[str] = []
    inside = False

    def wrapped(name: str, original: Callable[..., Any], counts: Callable[..., bool]) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal inside
            if inside:  # of another one: one transfer
                return original(*args, **options)
            if counts(*args):
                found.append(name)
            inside = True
            try:
                return original(*args, **options)
            finally:
                inside = False

        return call

    def of_host(*args: Any) -> bool:
        return not isinstance(args[0], paddle.Tensor)

    def from_host(*args: Any) -> bool:
        """``set_value`` goes through the host for tensors too."""
        return True

    with ExitStack() as stack:
        for name in (*_TO_HOST, *_VALUE_SIZED):
            for place in (paddle.Tensor, paddle) if name in _VALUE_SIZED else (paddle.Tensor,):
                function = wrapped(f"to host by {name}", getattr(place, name), from_host)
                stack.enter_context(mock.patch.object(place, name, function))
        function = wrapped("to device by to_tensor", paddle.to_tensor, of_host)
        stack.enter_context(mock.patch.object(paddle, "to_tensor", function))
        function = wrapped("to device by set_value", paddle.Tensor.set_value, from_host)
        stack.enter_context(mock.patch.object(paddle.Tensor, "set_value", function))
        yield found
