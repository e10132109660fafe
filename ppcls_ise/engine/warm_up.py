# SPDX-License-Identifier: Apache-2.0
"""Batch-norm statistics of a network without pretrained weights, before its first features."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import paddle
from paddle import nn

from ppcls_ise import compat
from ppcls_ise.compat.training_loop import dynamic_graph
from ppcls_ise.data import ReIDDataset
from ppcls_ise.engine.callback import TrainingEngine
from ppcls_ise.engine.run_time import multiply_adds
from ppcls_ise.utils.progress import tracked
from ppcls_ise.utils.stop_requests import stopping_at_once

# So much work takes a minute or two on a few processors and nothing on a card. It is a count, not
# a time: the number of batches decides the weights, and has to be the same on every machine.
_MOST_WORK = 5e12
_LEAST_BATCHES = 4
_MOMENTA = ("_momentum", "momentum")


def batches_within(wanted: int, work: float) -> int:
    """``wanted`` batches of ``work`` multiplications each, or as many as are not too much."""
    return min(wanted, max(_LEAST_BATCHES, int(_MOST_WORK / max(work, 1.0))))


@paddle.no_grad()
def warm_up(engine: TrainingEngine, view: ReIDDataset, wanted: int) -> None:
    """Pass random training images through the network in training mode; weights do not change.

    A network that would compute for minutes gets fewer batches, each of which counts for more, so
    that as little is left of the initial statistics.

    Args:
        view: the training images as the clustering sees them.
        wanted: batches.
    """
    generator = np.random.default_rng((engine.seed, 0))
    model, sampler = engine.plain_model, engine.train_sampler
    size = min(sampler.batch_size * sampler.world_size, len(view))
    work = size * multiply_adds(model.backbone, view.blank().shape)
    batches = batches_within(wanted, work)
    few = "" if batches == wanted else f" instead of {wanted}, as it is a large network,"
    compat.logger().info(
        f"[Cluster] no pretrained weights: warming the batch-norm statistics with {batches} "
        f"batches{few} of {size} images (Clustering.warm_up_batches)"
    )
    engine.stop_if_asked()
    model.train()
    model.head.eval()  # there are no labels, and no memory yet
    with stopping_at_once(), _weight_of_batches(model, wanted / batches):
        for _ in tracked(range(batches), "warm-up", "batch", batches):
            # As in training, a process takes its part of the global batch; process 0's statistics
            # are the ones that count.
            chosen = generator.choice(len(view), size, replace=False)
            chosen = np.array_split(chosen, sampler.world_size)[sampler.rank]
            items = [view[int(i)] for i in chosen]
            images = [image for image, label, _ in items if label[2]]  # the readable ones
            if images:
                batch = paddle.to_tensor(np.stack(images))
                if view.on_device is not None:
                    batch = view.on_device(batch)
                with compat.precision(engine, is_eval=False), dynamic_graph():
                    model(batch)
    engine.stop_if_asked()
    model.head.train()


@contextmanager
def _weight_of_batches(model: nn.Layer, times: float) -> Iterator[None]:
    """Let a batch count as ``times`` batches in running statistics."""
    changed = []
    for layer in model.sublayers():
        for key in _MOMENTA:
            if hasattr(layer, "_mean") and isinstance(value := getattr(layer, key, None), float):
                changed.append((layer, key, value))
    try:
        if times != 1.0:
            for layer, key, value in changed:
                setattr(layer, key, value**times)
        yield
    finally:
        for layer, key, value in changed:
            setattr(layer, key, value)
