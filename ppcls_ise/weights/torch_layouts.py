# SPDX-License-Identifier: Apache-2.0
"""Which network a set of names is, and its names on the other side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from ppcls_ise.weights.mobilenet_layout import mobilenet_v2_layout
from ppcls_ise.weights.rec_model_layout import TensorName, rec_model_layout, resnet_layout
from ppcls_ise.weights.vit_layout import vit_layout

Shapes = Mapping[str, Sequence[int]]
State = dict[str, np.ndarray]

_EPSILON = 1e-5
_QUANTILES = 1000
_WHOLE = "backbone."


@dataclass(frozen=True)
class Layout:
    """A network's names on both sides.

    Attributes:
        network: what it is, in words.
        tensors: all but those that ``add`` adds.
        advice: where the converted file belongs.
        add: adds the tensors that only PaddleClas's network has; None for none.
    """

    network: str
    tensors: list[TensorName]
    advice: str
    add: Callable[[State], None] | None = None


def layout_of_torch(shapes: Shapes) -> Layout:
    """The network of a PyTorch ``state_dict``, by the names that tell it; by default the ResNet-50
    of the re-identification code."""
    if "cls_token" in shapes:
        return _vit(shapes, ours=_WHOLE if "bottleneck.weight" in shapes else "")
    if "features.0.0.weight" in shapes:
        return _mobilenet(shapes)
    if "conv1.weight" in shapes:
        blocks = {tuple(n.split(".")[:2]) for n in shapes if n.startswith("layer")}
        return _resnet(
            len(blocks),
            bottleneck=any(".conv3." in name for name in shapes),
            ibn=any(".bn1.IN." in name for name in shapes),
            classes=_length(shapes, "fc.weight", 0),
        )
    return _rec_model(gem="gap.p" in shapes, ibn=any(".bn1.IN." in name for name in shapes))


def layout_of_ours(shapes: Shapes) -> Layout:
    """The network of a state of ours; by default a ``RecModel`` with ResNet-50."""
    prefix = _WHOLE if any(name.startswith(_WHOLE) for name in shapes) else ""
    ibn = any(".bn.IN." in name for name in shapes)
    if f"{prefix}cls_token" in shapes:
        plain = {name.removeprefix(prefix): shape for name, shape in shapes.items()}
        return _vit(plain, ours=prefix)
    if "conv9._conv.weight" in shapes:
        return _mobilenet({})
    if "stem.0.conv.weight" in shapes:
        blocks = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
        return _resnet(
            len(blocks),
            bottleneck=any(".conv2." in name for name in shapes),
            ibn=ibn,
            classes=_length(shapes, "fc.weight", 1),
        )
    return _rec_model(gem="neck.pooling.p" in shapes, ibn=ibn)


def _rec_model(*, gem: bool, ibn: bool) -> Layout:
    name = "ResNet50_IBN_a" if ibn else "ResNet50_last_stage_stride1"
    pooling = (
        "The network pools with GeM: set Arch.BackboneStopLayer.name to blocks[15] and "
        "Arch.Neck.pooling to gem."
        if gem
        else "The network pools by the average: Arch.BackboneStopLayer.name avg_pool."
    )
    return Layout(
        f"the {'IBN-' if ibn else ''}ResNet-50 of ISE-ReID, Cluster Contrast and HHCL",
        rec_model_layout(gem=gem, ibn=ibn),
        f"Global.pretrained_model with Arch.Backbone.name {name}. {pooling}",
    )


def _vit(shapes: Shapes, *, ours: str) -> Layout:
    width = shapes["cls_token"][-1:]
    size = {384: "small", 768: "base"}.get(width[0] if width else 0, "…")
    key = "Global.pretrained_model" if ours else "Arch.Backbone.pretrained"
    stem = "patch_embed.conv.0.weight" in shapes
    return Layout(
        f"the ViT-{size[0].upper()}/16 of DINO and TransReID-SSL",
        vit_layout(shapes, ours=ours, neck=bool(ours)),
        f"{key} with Arch.Backbone.name ViT_{size}_patch16_reid, conv_stem {stem}.",
    )


def _resnet(blocks: int, *, bottleneck: bool, ibn: bool, classes: int | None) -> Layout:
    depths = {16: 50, 33: 101, 50: 152} if bottleneck else {8: 18, 16: 34}
    depth = depths.get(blocks, 50)
    tensors = resnet_layout(depth, ibn=ibn)
    features = tensors[-1].shape[0]
    name = "ResNet50_IBN_a" if ibn else f"ResNet{depth}"
    if name == "ResNet50":
        name = "ResNet50_last_stage_stride1"
    advice = f"Arch.Backbone.pretrained with Arch.Backbone.name {name}."
    add = None
    if not bottleneck:
        # PaddleClas has a convolution in the first shortcut, where torchvision has nothing.
        advice += _note("blocks.0.short")
        add = _identity("stem.0.bn", "blocks.0.short.conv", "blocks.0.short.bn", pooled=9)
    return Layout(
        f"an {'IBN-' if ibn else ''}ResNet-{depth} of ImageNet",
        [*tensors, *_classifier("fc", "fc", features, classes)],
        advice,
        add,
    )


def _mobilenet(shapes: Shapes) -> Layout:
    # PaddleClas expands in the first block too, where torchvision has nothing.
    extra = "conv2._first_block._expand_conv"
    classes = _length(shapes, "classifier.1.weight", 0)
    return Layout(
        "torchvision's MobileNetV2",
        [*mobilenet_v2_layout(), *_classifier("out", "classifier.1", 1280, classes)],
        f"Arch.Backbone.pretrained with Arch.Backbone.name MobileNetV2.{_note(extra)}",
        _identity("conv1._batch_norm", f"{extra}._conv", f"{extra}._batch_norm", largest=6.0),
    )


def _note(layer: str) -> str:
    return (
        f" {layer}, which only PaddleClas's network has, is set so that it changes nothing in "
        "evaluation, and little in training."
    )


def _classifier(ours: str, theirs: str, inputs: int, classes: int | None) -> list[TensorName]:
    if classes is None:
        return []
    return [
        TensorName(f"{ours}.weight", f"{theirs}.weight", (classes, inputs), transposed=True),
        TensorName(f"{ours}.bias", f"{theirs}.bias", (classes,)),
    ]


def _length(shapes: Shapes, name: str, axis: int) -> int | None:
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) == 2 else None


def _identity(
    before: str, conv: str, norm: str, *, largest: float = np.inf, pooled: int = 1
) -> Callable[[State], None]:
    """Fill a 1x1 convolution and its batch norm so that together they change nothing.

    In evaluation that is exact. In training the batch norm divides by the batch's own deviation, so
    its scale and shift are those that its input has on average: the batch norm ``before`` it gives
    N(bias, weight²), of which the activation cuts off what is below 0 and above ``largest``, and
    max-pooling takes the largest of ``pooled`` (as if they were independent).
    """

    def add(state: State) -> None:
        shift, scale = (state[f"{before}.{part}"].astype(np.float64) for part in ("bias", "weight"))
        normal = ndtri(((np.arange(_QUANTILES) + 0.5) / _QUANTILES) ** (1.0 / pooled))
        values = (shift + np.abs(scale) * normal[:, None]).clip(0.0, largest)
        mean, variance = values.mean(axis=0), values.var(axis=0)
        size = len(mean)
        added = {
            f"{conv}.weight": np.eye(size).reshape(size, size, 1, 1),
            f"{norm}.weight": np.sqrt(variance + _EPSILON),
            f"{norm}.bias": mean,
            f"{norm}._mean": mean,
            f"{norm}._variance": variance,
        }
        state.update({name: value.astype(np.float32) for name, value in added.items()})

    return add
