# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of MobileNetV2: in PaddleClas and in torchvision."""

from ppcls_ise.weights.rec_model_layout import TensorName, norm_layout

# Expansion, channels, blocks of every stage.
_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
_FIRST, _LAST = 32, 1280


def mobilenet_v2_layout() -> list[TensorName]:
    """All tensors without the classifier, in PyTorch's order; PaddleClas has one convolution more
    (``conv2._first_block._expand_conv``), which changes nothing in torchvision's network."""
    tensors: list[TensorName] = []

    def add(ours: str, conv: str, norm: str, shape: tuple[int, ...]) -> None:
        tensors.append(TensorName(f"{ours}._conv.weight", f"{conv}.weight", shape))
        tensors.extend(norm_layout(f"{ours}._batch_norm", norm, shape[0]))

    add("conv1", "features.0.0", "features.0.1", (_FIRST, 3, 3, 3))
    number, channels = 1, _FIRST
    for stage, (expansion, outputs, blocks) in enumerate(_STAGES, start=2):
        for i in range(blocks):
            own = f"conv{stage}." + (f"conv{stage}_{i + 1}" if i else "_first_block")
            their, width, j = f"features.{number}.conv", channels * expansion, 0
            if expansion > 1:
                add(f"{own}._expand_conv", f"{their}.0.0", f"{their}.0.1", (width, channels, 1, 1))
                j = 1
            add(f"{own}._bottleneck_conv", f"{their}.{j}.0", f"{their}.{j}.1", (width, 1, 3, 3))
            shape = (outputs, width, 1, 1)
            add(f"{own}._linear_conv", f"{their}.{j + 1}", f"{their}.{j + 2}", shape)
            number, channels = number + 1, outputs
    add("conv9", f"features.{number}.0", f"features.{number}.1", (_LAST, channels, 1, 1))
    return tensors
