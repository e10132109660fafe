# SPDX-License-Identifier: Apache-2.0
"""What a network costs, and how long a run will take on a processor, before it begins."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls_ise.compat.training_loop import dynamic_graph
from ppcls_ise.data import ReIDDataset
from ppcls_ise.engine.callback import TrainingEngine

# A training step computes the network forward, and backward for inputs and for weights.
_PASSES = 3
_MEASURED_WORK = 1e10  # multiplications in a pass that is timed: a fraction of a second
_MEASURED_IMAGES = 8
_TIMES = 3
_LONG_HOURS = 12.0


@paddle.no_grad()
def multiply_adds(model: nn.Layer, image_shape: Sequence[int]) -> int:
    """Multiplications of convolutions and linear layers for one image, by count.

    Args:
        model: takes [1, 3, H, W]; its mode is restored.
        image_shape: [3, H, W].
    """
    total = 0

    def count(layer: nn.Layer, inputs: Any, output: Any) -> None:
        nonlocal total
        per_output = int(np.prod(layer.weight.shape)) // _outputs(layer)
        total += per_output * int(np.prod(output.shape))

    layers = [part for part in model.sublayers() if isinstance(part, nn.Conv2D | nn.Linear)]
    hooks = [layer.register_forward_post_hook(count) for layer in layers]
    try:
        _forward(model, 1, image_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _outputs(layer: nn.Layer) -> int:
    return layer.weight.shape[0 if isinstance(layer, nn.Conv2D) else 1]


@paddle.no_grad()
def _forward(model: nn.Layer, count: int, image_shape: Sequence[int]) -> None:
    """The network on black images, as in evaluation; nothing of it changes."""
    before = [(part, part.training) for part in model.sublayers(include_self=True)]
    model.eval()
    try:
        with dynamic_graph():
            np.asarray(model(paddle.zeros([count, *image_shape])))
    finally:
        for part, training in before:
            part.training = training


def seconds_per_image(model: nn.Layer, image_shape: Sequence[int], batch_size: int) -> float:
    """Measured time of the network forward, in batches of up to ``batch_size``; best of three."""
    most = int(_MEASURED_WORK / max(1, multiply_adds(model, image_shape)))
    count = min(batch_size, max(1, most))
    seconds = []
    for _ in range(_TIMES):  # the first one also makes its plans, and others may be disturbed
        started = time.perf_counter()
        _forward(model, count, image_shape)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / count


def seconds_to_read(dataset: ReIDDataset) -> float:
    """Measured time to read and prepare an image."""
    rows = np.linspace(0, len(dataset) - 1, min(_MEASURED_IMAGES, len(dataset))).astype(int)
    started = time.perf_counter()
    for row in rows.tolist():
        dataset[row]
    return (time.perf_counter() - started) / len(rows)


def hours_left(
    engine: TrainingEngine, image_shape: Sequence[int], view: ReIDDataset, interval: int, epoch: int
) -> float:
    """Hours from the beginning of ``epoch`` to the end of the run, as far as the network and the
    reading of images decide it; clustering itself, evaluations and what else runs come on top.

    Args:
        view: the training images as the clustering sees them.
        interval: epochs from one clustering to the next.
    """
    sampler = engine.train_sampler
    compute = seconds_per_image(engine.plain_model.backbone, image_shape, sampler.batch_size)
    read = seconds_to_read(view)
    workers = engine.num_workers
    # Workers read while the network computes, on processors of their own at best.
    trained = max(_PASSES * compute, read / workers) if workers else _PASSES * compute + read
    clustered = max(compute, read / workers) if workers else compute + read
    steps = sampler.batch_size * len(sampler) * trained
    features = len(view) / sampler.world_size / interval * clustered
    return (engine.epochs - epoch + 1) * (steps + features) / 3600.0


def in_words(hours: float) -> str:
    """``3 minutes``, ``5 hours``, ``12 days``."""
    minutes = hours * 60.0
    for size, unit in ((60.0 * 48.0, "days"), (90.0, "hours")):
        if minutes >= size:
            return f"{minutes / (60.0 * (24.0 if unit == 'days' else 1.0)):.0f} {unit}"
    count = max(1, round(minutes))
    return f"{count} minute{'' if count == 1 else 's'}"


def is_long(hours: float) -> bool:
    return hours > _LONG_HOURS
