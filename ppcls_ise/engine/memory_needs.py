# SPDX-License-Identifier: Apache-2.0
"""What a training needs of /dev/shm and of the card, before it fails for lack of it."""

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.io import DataLoader

from ppcls_ise.distributed.shared_arrays import SHARED_MEMORY
from ppcls_ise.errors import ConfigError
from ppcls_ise.layers import GroupedBatchNorm

_BATCHES_PER_WORKER = 2  # that Paddle's loader has on the way
_STATES = {"Adam": 4, "AdamW": 4, "Momentum": 3}  # weight, gradient, moments
_NORMS = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, GroupedBatchNorm)
_WORKSPACE = 1 << 30  # of cuDNN and cuBLAS, and the CUDA context


def loader_bytes(image: np.ndarray, batch_size: int, num_workers: int) -> int:
    """Bytes of shared memory that a loader fills: all its batches on the way."""
    return image.nbytes * batch_size * num_workers * _BATCHES_PER_WORKER


def require_shared_memory(
    loader: DataLoader,
    section: str,
    *,
    free: Callable[[], int] = lambda: shutil.disk_usage(SHARED_MEMORY).free,
) -> None:
    """Make sure that the batches of ``loader`` fit into /dev/shm; a bus error would be the answer.

    Args:
        section: of the YAML, for the message.
        free: how many bytes are free there.

    Raises:
        ConfigError: they do not.
    """
    workers = loader.num_workers
    if not workers or not loader.use_shared_memory or not SHARED_MEMORY.is_dir():
        return
    sampler = loader.batch_sampler
    need, there = loader_bytes(loader.dataset.blank(), sampler.batch_size, workers), free()
    if need > there:
        raise ConfigError(
            f"{section}: {workers} workers keep {_BATCHES_PER_WORKER} batches of "
            f"{sampler.batch_size} images each in shared memory, {need / 1e6:.0f} MB, and "
            f"{SHARED_MEMORY} has {there / 1e6:.0f} MB free. Give a container more "
            f"(docker run --shm-size={-(-need * 2 // (1 << 30))}g), or lower "
            f"{section}.loader.num_workers, or set {section}.loader.use_shared_memory to False "
            "(slower)"
        )


@paddle.no_grad()
def saved_bytes(model: nn.Layer, image_shape: list[int]) -> int:
    """Bytes of activations that one image holds at the start of the backward pass, in float32, by
    count.

    What convolutions, activations and poolings put out; a batch norm saves its input, which is
    counted already, and a sum saves nothing. On top come two gradients of the largest output. One
    forward pass of one image.
    """
    sizes = [0]

    def count(layer: nn.Layer, inputs: Any, output: Any) -> None:
        if isinstance(output, paddle.Tensor):
            sizes.append(4 * int(np.prod(output.shape)))

    parts = [part for part in model.sublayers() if not part.sublayers()]
    hooks = [
        part.register_forward_post_hook(count) for part in parts if not isinstance(part, _NORMS)
    ]
    before = [(part, part.training) for part in model.sublayers(include_self=True)]
    model.eval()
    try:
        model(paddle.zeros([1, *image_shape]))
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in before:
            part.training = training
    return sum(sizes) + 2 * max(sizes)


def card_bytes(
    model: nn.Layer, image_shape: list[int], batch_size: int, *, amp: bool, optimizer: str
) -> int:
    """Bytes on the card that a training step needs, by count: weights, gradients, moments, saved
    activations (half of them in mixed precision), and 1 GB for the libraries."""
    weights = sum(int(np.prod(weight.shape)) for weight in model.parameters())
    activations = saved_bytes(model.backbone, image_shape) * batch_size // (2 if amp else 1)
    return 4 * weights * _STATES.get(optimizer, 4) + activations + _WORKSPACE


def card_memory_remark(engine: Any) -> str | None:
    """A warning for a card whose memory will probably not do; None where it will, or on a CPU."""
    options = engine.config["Global"]
    if options["device"] != "gpu" or not options.get("image_shape"):
        return None
    batch_size = engine.train_sampler.batch_size
    need = card_bytes(
        engine.plain_model,
        options["image_shape"],
        batch_size,
        amp=engine.amp,
        optimizer=engine.config["Optimizer"]["name"],
    )
    there = paddle.device.cuda.get_device_properties().total_memory
    if need <= there:
        return None
    return (
        f"{batch_size} images a step need about {need / 1e9:.0f} GB on the card by count, and it "
        f"has {there / 1e9:.0f} GB. Mixed precision halves most of it (docs/en/gpu.md), or lower "
        "DataLoader.Train.sampler.batch_size, or take several cards"
    )
