# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of a ResNet-50 with a batch-norm neck: in PaddleClas's ``RecModel`` and in the
PyTorch code of ISE-ReID, Cluster Contrast and HHCL, which share one network."""

from collections.abc import Iterator
from dataclasses import dataclass

_BLOCKS = (3, 4, 6, 3)
_EXPANSION = 4
_WIDTH = 64
# Ours, theirs; in the order in which PyTorch writes them.
_NORM = (
    ("weight", "weight"),
    ("bias", "bias"),
    ("_mean", "running_mean"),
    ("_variance", "running_var"),
)
FEATURES = _WIDTH * 2 ** (len(_BLOCKS) - 1) * _EXPANSION
"""Channels of the last stage: 2048."""


@dataclass(frozen=True)
class TensorName:
    """One tensor: its name in a ``RecModel``, its name in PyTorch, its shape."""

    name: str
    torch_name: str
    shape: tuple[int, ...]


def rec_model_layout(*, gem: bool = False) -> list[TensorName]:
    """All tensors of backbone and neck, in PyTorch's order.

    ``ResNet50_last_stage_stride1`` numbers its 16 bottlenecks through (``blocks.0`` to
    ``blocks.15``); PyTorch counts them per stage (``base.4.0`` to ``base.7.2``). No shape differs:
    both store convolutions as [out, in, height, width], and there is no matrix.

    Args:
        gem: with the learnable power of GeM pooling (``neck.pooling.p``).
    """
    tensors = [*_conv_and_norm("backbone.stem.0", "base.0", "base.1", (_WIDTH, 3, 7, 7))]
    number, channels = 0, _WIDTH
    for stage, num_blocks in enumerate(_BLOCKS):
        width = _WIDTH * 2**stage
        for i in range(num_blocks):
            ours, theirs = f"backbone.blocks.{number}", f"base.{4 + stage}.{i}"
            shapes = (
                (width, channels, 1, 1),
                (width, width, 3, 3),
                (width * _EXPANSION, width, 1, 1),
            )
            for j, shape in enumerate(shapes):
                tensors += _conv_and_norm(
                    f"{ours}.conv{j}", f"{theirs}.conv{j + 1}", f"{theirs}.bn{j + 1}", shape
                )
            if i == 0:
                shape = (width * _EXPANSION, channels, 1, 1)
                down = f"{theirs}.downsample"
                tensors += _conv_and_norm(f"{ours}.short", f"{down}.0", f"{down}.1", shape)
            number, channels = number + 1, width * _EXPANSION
    if gem:
        tensors.append(TensorName("neck.pooling.p", "gap.p", (1,)))
    tensors += _norm("neck.feat_bn", "feat_bn", FEATURES)
    return tensors


def _conv_and_norm(ours: str, conv: str, norm: str, shape: tuple[int, ...]) -> Iterator[TensorName]:
    yield TensorName(f"{ours}.conv.weight", f"{conv}.weight", shape)
    yield from _norm(f"{ours}.bn", norm, shape[0])


def _norm(ours: str, theirs: str, channels: int) -> Iterator[TensorName]:
    for name, torch_name in _NORM:
        yield TensorName(f"{ours}.{name}", f"{theirs}.{torch_name}", (channels,))
