# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of ResNets: in PaddleClas, in torchvision and IBN-Net, and in the PyTorch code
of ISE-ReID, Cluster Contrast and HHCL, which share one ResNet-50 with a batch-norm neck."""

from collections.abc import Iterator
from dataclasses import dataclass

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_EXPANSION = 4
_WIDTH = 64
_STAGES_WITH_IBN = 3
# Ours, theirs; in the order in which PyTorch writes them.
_NORM = (
    ("weight", "weight"),
    ("bias", "bias"),
    ("_mean", "running_mean"),
    ("_variance", "running_var"),
)
_INSTANCE_NORM = (("scale", "weight"), ("bias", "bias"))
FEATURES = _WIDTH * 2**3 * _EXPANSION
"""Channels of the last stage: 2048."""


@dataclass(frozen=True)
class TensorName:
    """One tensor: its name in Paddle, its name in PyTorch, its shape there.

    A matrix is [in, out] in Paddle and [out, in] in PyTorch (``transposed``); no other shape
    differs.
    """

    name: str
    torch_name: str
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The shape in Paddle."""
        return self.shape[::-1] if self.transposed else self.shape


def rec_model_layout(*, gem: bool = False, ibn: bool = False) -> list[TensorName]:
    """All tensors of backbone and neck of a ``RecModel`` with ResNet-50, in PyTorch's order.

    Args:
        gem: with the learnable power of GeM pooling (``neck.pooling.p``).
        ibn: the backbone is ``ResNet50_IBN_a``.
    """
    tensors = resnet_layout(50, ibn=ibn, ours="backbone.", theirs="base")
    if gem:
        tensors.append(TensorName("neck.pooling.p", "gap.p", (1,)))
    return [*tensors, *norm_layout("neck.feat_bn", "feat_bn", FEATURES)]


def resnet_layout(
    depth: int, *, ibn: bool = False, ours: str = "", theirs: str = ""
) -> list[TensorName]:
    """All tensors of a ResNet without its classifier, in PyTorch's order.

    PaddleClas numbers its blocks through (``blocks.0`` to ``blocks.15``), PyTorch counts them per
    stage. No shape differs: both store convolutions as [out, in, height, width].

    Args:
        depth: 18, 34, 50, 101 or 152.
        ibn: IBN-a, see `ppcls_ise.layers.IBN`.
        ours: prefix of PaddleClas's names.
        theirs: empty for torchvision's names (``conv1``, ``layer1.0``), ``base`` for those of the
            re-identification code (``base.0``, ``base.4.0``).
    """
    bottleneck = depth >= 50
    stem = ("base.0", "base.1") if theirs else ("conv1", "bn1")
    tensors = [*_conv_and_norm(f"{ours}stem.0", *stem, (_WIDTH, 3, 7, 7))]
    number, channels = 0, _WIDTH
    for stage, num_blocks in enumerate(_BLOCKS[depth]):
        width = _WIDTH * 2**stage
        outputs = width * (_EXPANSION if bottleneck else 1)
        for i in range(num_blocks):
            own = f"{ours}blocks.{number}"
            their = f"base.{4 + stage}.{i}" if theirs else f"layer{1 + stage}.{i}"
            shapes = [(width, channels, 3, 3), (width, width, 3, 3)]
            if bottleneck:
                shapes = [(width, channels, 1, 1), shapes[1], (outputs, width, 1, 1)]
            for j, shape in enumerate(shapes):
                tensors += _conv_and_norm(
                    f"{own}.conv{j}",
                    f"{their}.conv{j + 1}",
                    f"{their}.bn{j + 1}",
                    shape,
                    ibn=ibn and j == 0 and stage < _STAGES_WITH_IBN,
                )
            if i == 0 and channels != outputs:
                shape = (outputs, channels, 1, 1)
                down = f"{their}.downsample"
                tensors += _conv_and_norm(f"{own}.short", f"{down}.0", f"{down}.1", shape)
            number, channels = number + 1, outputs
    return tensors


def norm_layout(ours: str, theirs: str, channels: int) -> Iterator[TensorName]:
    """The tensors of a batch norm."""
    for name, torch_name in _NORM:
        yield TensorName(f"{ours}.{name}", f"{theirs}.{torch_name}", (channels,))


def ibn_layout(ours: str, theirs: str, channels: int) -> Iterator[TensorName]:
    """The tensors of an IBN over ``channels`` channels."""
    half = channels // 2
    for name, torch_name in _INSTANCE_NORM:
        yield TensorName(f"{ours}.IN.{name}", f"{theirs}.IN.{torch_name}", (half,))
    yield from norm_layout(f"{ours}.BN", f"{theirs}.BN", channels - half)


def _conv_and_norm(
    ours: str, conv: str, norm: str, shape: tuple[int, ...], *, ibn: bool = False
) -> Iterator[TensorName]:
    yield TensorName(f"{ours}.conv.weight", f"{conv}.weight", shape)
    yield from (ibn_layout if ibn else norm_layout)(f"{ours}.bn", norm, shape[0])
