# SPDX-License-Identifier: Apache-2.0
"""TF32: products of float32 values with 10 bits of mantissa, the default of recent GPUs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import paddle

# What decides about convolutions and about matrix products. A Paddle that has the flags (3.4)
# ignores the older switches; one without CUDA has neither.
_FLAGS = {"convolutions": "FLAGS_cudnn_allow_tf32", "products": "FLAGS_cublas_allow_tf32"}
_SWITCHES = {"convolutions": "cudnn_switch", "products": "cublas_switch"}
_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
_AMPERE = 8  # compute capability


def allowed() -> dict[str, bool]:
    """Whether Paddle lets ``convolutions`` and matrix ``products`` use TF32; empty where it does
    not say (a CPU build)."""
    found = {}
    for kind, flag in _FLAGS.items():
        value = _flag(flag)
        switch = getattr(paddle.base.core, f"get_{_SWITCHES[kind]}", None)
        if value is None and switch is not None:
            value = switch()
        if value is not None:
            found[kind] = bool(value)
    return found


def state(device: str) -> str:
    """How ``device`` (as in ``Global.device``) computes on float32 values, for logs and files:
    ``float32`` (a CPU, an older card, or TF32 off), or ``tf32 for convolutions and products``."""
    if device != "gpu" or os.environ.get(_OVERRIDE) == "0":
        return "float32"
    if paddle.device.cuda.get_device_capability()[0] < _AMPERE:
        return "float32"
    kinds = [kind for kind, value in allowed().items() if value]
    return f"tf32 for {' and '.join(kinds)}" if kinds else "float32"


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions and products in float32 proper: TF32 is 1e-3 off. What was set comes back."""
    core, restore = paddle.base.core, []
    for kind, flag in _FLAGS.items():
        if (before := _flag(flag)) is not None:
            restore.append((paddle.set_flags, ({flag: before},)))
            paddle.set_flags({flag: False})
        name = _SWITCHES[kind]
        if hasattr(core, f"set_{name}"):
            restore.append((getattr(core, f"set_{name}"), (getattr(core, f"get_{name}")(),)))
            getattr(core, f"set_{name}")(False)
    try:
        yield
    finally:
        for function, arguments in restore:
            function(*arguments)


def _flag(name: str) -> bool | None:
    try:
        return paddle.get_flags([name])[name]
    except ValueError:  # this Paddle has no such flag
        return None
