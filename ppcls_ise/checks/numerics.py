# SPDX-License-Identifier: Apache-2.0
"""Does the device compute what it should? A CPU checks itself against plain numpy where it can."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls_ise.checks.methods import METHODS, Step, make_batch
from ppcls_ise.checks.report import CheckFailed, Machine, require_close
from ppcls_ise.checks.transfers import transfers
from ppcls_ise.clustering import k_nearest
from ppcls_ise.engine.gpu_search import top_candidates
from ppcls_ise.engine.tf32 import full_float32
from ppcls_ise.heads import PLIHead
from ppcls_ise.layers import GroupedBatchNorm, group_batch_norms
from ppcls_ise.losses import ClusterContrastLoss, LPLoss

_ROWS, _LENGTH = 3000, 30
_TRANSFERS = 2
_STEPS = 10


def search(machine: Machine) -> str:
    """Neighbor lists of the search on the device against those of ``blocked``, byte for byte."""
    rows = make_batch(_ROWS // 10, 10, _ROWS // 10, 256).features
    wanted = k_nearest(rows, _LENGTH, backend="blocked")
    found = k_nearest(rows, _LENGTH, backend=top_candidates)
    for what, ours, theirs in zip(("indices", "similarities"), found, wanted, strict=True):
        if ours.tobytes() != theirs.tobytes():
            share = (ours != theirs).any(axis=1).mean()
            raise CheckFailed(
                f"{what} differ in {share:.1%} of {_ROWS} lists (use backend blocked)"
            )
    return f"{_ROWS} lists of {_LENGTH}, equal to blocked, byte for byte"


def steps(machine: Machine) -> str:
    """One step of every head: few transfers, finite values; on a card, equal to the CPU's."""
    worst = max(_compare(method, _step(method, machine.device), machine) for method in METHODS)
    counts = {method: count_transfers(method) for method in METHODS}
    if high := {method: n for method, n in counts.items() if n > _TRANSFERS}:
        raise CheckFailed(f"more than {_TRANSFERS} transfers between host and device: {high}")
    compared = f", at most {worst:.0e} from the CPU's" if machine.device == "gpu" else ""
    return f"{len(METHODS)} methods: losses, gradients, memory{compared}; 2 transfers each"


def count_transfers(method: str) -> int:
    """Blocking transfers in one step of head and losses, on the current device."""
    step = Step(method, make_batch())
    step()
    with transfers() as found:
        step()
    return len(found)


def batch_norm(machine: Machine) -> str:
    """Grouped batch norm: output and running statistics against numpy, and no transfer."""
    generator = np.random.default_rng(0)
    x = (3.0 * generator.standard_normal((12, 5, 6, 4)) + 1.0).astype(np.float32)
    layer = GroupedBatchNorm(nn.BatchNorm2D(5), 4)
    tensor = paddle.to_tensor(x, stop_gradient=False)
    with transfers() as found:
        output = layer(tensor)
        output.sum().backward()
    if found:
        raise CheckFailed(f"a layer of grouped batch norm waits for the device: {found}")
    groups = x.astype(np.float64).reshape(3, 4, 5, 24)
    mean, variance = groups.mean(axis=(1, 3)), groups.var(axis=(1, 3))
    scale = np.sqrt(variance + 1e-5)[:, None, :, None]
    wanted = (groups - mean[:, None, :, None]) / scale
    error = require_close("the output", output.numpy(), wanted.reshape(x.shape), 1e-5)
    unbiased = variance[0] * 96 / 95
    require_close("the running mean", layer._mean.numpy(), 0.1 * mean[0], 1e-5)
    require_close("the running variance", layer._variance.numpy(), 0.9 + 0.1 * unbiased, 1e-5)
    return f"output {error:.0e} from numpy, running statistics too; 0 transfers a layer"


def trajectory(machine: Machine) -> str:
    """Ten steps of a small network on the card and on the CPU."""
    machine.require_card()
    found, wanted = (_losses(device) for device in ("gpu", "cpu"))
    error = require_close(f"the loss of {_STEPS} steps", found, wanted, 1e-2)
    return f"{_STEPS} steps, losses {error:.0e} from the CPU's"


def mixed_precision(machine: Machine) -> str:
    """Heads and losses stay in float32 inside ``auto_cast``, and a step within 2 %."""
    machine.require_card("a CPU computes nothing in mixed precision")
    kinds = ["float16"] + ["bfloat16"] * (paddle.device.cuda.get_device_capability()[0] >= 8)
    for kind in kinds:
        for level in ("O1", "O2"):
            context = functools.partial(paddle.amp.auto_cast, level=level, dtype=kind)
            for method in METHODS:
                plain, mixed = (Step(method, make_batch()) for _ in range(2))
                wanted, values = plain(), mixed(context)
                for name, value in values.items():
                    if value.dtype != paddle.float32:
                        raise CheckFailed(f"{name} of {method} is {value.dtype} under {level}")
                    require_close(
                        f"{name} under {kind} {level}", float(value), float(wanted[name]), 1e-5
                    )
            found, reference = _losses("gpu", context), _losses("gpu")
            require_close(f"training under {kind} {level}", found[:2], reference[:2], 2e-2)
    return f"{' and '.join(kinds)}, O1 and O2: heads and losses in float32, steps within 2 %"


def _step(method: str, device: str) -> dict[str, np.ndarray]:
    before = paddle.device.get_device()
    paddle.device.set_device(device)
    try:
        with full_float32():
            step = Step(method, make_batch())
            losses = step()
        return {
            **{name: value.numpy() for name, value in losses.items()},
            "gradient": step.features.grad.numpy(),
            "memory": step.head.memory.rows.numpy(),
        }
    finally:
        paddle.device.set_device(before)


def _compare(method: str, found: dict[str, np.ndarray], machine: Machine) -> float:
    bad = [name for name, value in found.items() if not np.isfinite(value).all()]
    if bad:
        raise CheckFailed(f"{method}: {', '.join(bad)} is not finite")
    if np.array_equal(found["memory"][: len(make_batch().prototypes)], make_batch().prototypes):
        raise CheckFailed(f"{method}: the backward pass did not move the memory")
    if machine.device != "gpu":
        return 0.0
    wanted = _step(method, "cpu")
    return max(
        require_close(f"{method}: {name}", found[name], wanted[name], 1e-4) for name in wanted
    )


def _losses(
    device: str, precision: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> np.ndarray:
    """Losses of some steps of a small network with grouped batch norm, PLI and Adam."""
    before = paddle.device.get_device()
    paddle.device.set_device(device)
    try:
        generator = np.random.default_rng(0)
        network = nn.Sequential(
            nn.Conv2D(3, 16, 3, stride=2), nn.BatchNorm2D(16), nn.ReLU(), nn.AdaptiveAvgPool2D(1)
        )
        group_batch_norms(network, 8)
        for parameter in network.parameters():
            if len(parameter.shape) > 1:
                parameter.set_value(0.2 * generator.standard_normal(parameter.shape, np.float32))
        head, losses = PLIHead(), (ClusterContrastLoss(), LPLoss())
        head.memory.reset(make_batch(size=16).prototypes)
        optimizer = paddle.optimizer.Adam(1e-3, parameters=network.parameters())
        values = []
        with full_float32():
            for i in range(_STEPS):
                head.start_epoch(1, _STEPS, 1, i)
                images = paddle.to_tensor(generator.standard_normal((16, 3, 16, 8), np.float32))
                labels = paddle.to_tensor(np.repeat(generator.permutation(100)[:4], 4))
                with precision():
                    output = {"logits": head(network(images).flatten(1), labels.unsqueeze(1))}
                    total = sum(v for loss in losses for v in loss(output, labels).values())
                total.backward()
                optimizer.step()
                optimizer.clear_grad()
                values.append(float(total))
        return np.array(values)
    finally:
        paddle.device.set_device(before)
