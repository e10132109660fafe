# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of `ppcls_ise.backbones.ReIDViT`: here and in the PyTorch code of DINO and
TransReID-SSL."""

from collections.abc import Mapping, Sequence

from ppcls_ise.weights.rec_model_layout import TensorName, ibn_layout, norm_layout

_STEM = 64


def vit_layout(
    shapes: Mapping[str, Sequence[int]], *, ours: str = "", neck: bool = False
) -> list[TensorName]:
    """All tensors of a ViT/16 and its neck, in PyTorch's order.

    Args:
        shapes: names (without prefix) -> shapes of a network, which tell width, depth, positions
            and stem.
        ours: prefix of the names here.
        neck: with the batch norm after the class token.
    """
    (dim,) = shapes["cls_token"][-1:] or (1,)
    (positions,) = shapes.get("pos_embed", ())[1:2] or (1,)
    # As many blocks as are numbered: a file that skips a number lacks one, whatever it is.
    parts = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    depth = sum(part.isdecimal() for part in parts)
    tensors = [TensorName(f"{ours}cls_token", "cls_token", (1, 1, dim))]
    tensors.append(TensorName(f"{ours}pos_embed", "pos_embed", (1, positions, dim)))

    def add(name: str, weight: tuple[int, ...], *, bias: bool = True) -> None:
        transposed = len(weight) == 2
        tensors.append(TensorName(f"{ours}{name}.weight", f"{name}.weight", weight, transposed))
        if bias:
            tensors.append(TensorName(f"{ours}{name}.bias", f"{name}.bias", weight[:1]))

    stem = "patch_embed.conv"
    if f"{stem}.0.weight" in shapes:
        add(f"{stem}.0", (_STEM, 3, 7, 7), bias=False)
        tensors += ibn_layout(f"{ours}{stem}.1", f"{stem}.1", _STEM)
        add(f"{stem}.3", (_STEM, _STEM, 3, 3), bias=False)
        tensors += ibn_layout(f"{ours}{stem}.4", f"{stem}.4", _STEM)
        add(f"{stem}.6", (_STEM, _STEM, 3, 3), bias=False)
        tensors += norm_layout(f"{ours}{stem}.7", f"{stem}.7", _STEM)
        add("patch_embed.proj", (dim, _STEM, 8, 8))
    else:
        add("patch_embed.proj", (dim, 3, 16, 16))
    for i in range(depth):
        add(f"blocks.{i}.norm1", (dim,))
        add(f"blocks.{i}.attn.qkv", (3 * dim, dim))
        add(f"blocks.{i}.attn.proj", (dim, dim))
        add(f"blocks.{i}.norm2", (dim,))
        add(f"blocks.{i}.mlp.fc1", (4 * dim, dim))
        add(f"blocks.{i}.mlp.fc2", (dim, 4 * dim))
    add("norm", (dim,))
    if neck:
        tensors += norm_layout("neck.feat_bn", "bottleneck", dim)
    return tensors
