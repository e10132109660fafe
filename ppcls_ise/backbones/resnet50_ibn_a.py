# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 with instance-batch normalization."""

from typing import Any

from paddle import nn

from ppcls_ise import compat
from ppcls_ise.errors import ConfigError
from ppcls_ise.layers import IBN
from ppcls_ise.utils.components import register

# Stages 1 to 3 have 3 + 4 + 6 bottlenecks; the last stage keeps plain batch norms.
_BLOCKS_WITH_IBN = 13


@register("backbone")
def ResNet50_IBN_a(pretrained: bool = False, **options: Any) -> nn.Layer:  # noqa: N802
    """IBN-a ResNet-50 of re-identification: [B, 3, H, W] -> [B, 2048, H / 16, W / 16].

    PaddleClas's ``ResNet50_last_stage_stride1`` whose first normalization of every bottleneck of
    stages 1 to 3 is an `IBN`; the stem and stage 4 keep batch norm. Tensors are called as in
    PaddleClas's network, but for ``blocks.<n>.conv0.bn.IN.*`` and ``.BN.*`` of blocks 0 to 12.
    For average pooling set ``Arch.BackboneStopLayer.name`` to ``avg_pool``, for GeM to
    ``blocks[15]`` and ``Arch.Neck.pooling`` to ``gem``.

    Args:
        pretrained: False. A path is read by the engine; there is no file to download.
        options: see PaddleClas's ``ResNet``.

    Raises:
        ConfigError: ``pretrained`` is True.
    """
    if pretrained:
        raise ConfigError(
            "Arch.Backbone.pretrained: nobody publishes ResNet50_IBN_a for Paddle. Convert "
            "IBN-Net's resnet50_ibn_a (.pth) and give the .pdparams file's path; see "
            "docs/en/weights.md"
        )
    network = compat.lookup("backbone", "ResNet50_last_stage_stride1")(pretrained=False, **options)
    for block in network.blocks[:_BLOCKS_WITH_IBN]:
        block.conv0.bn = IBN(block.conv0.bn.weight.shape[0])
    return network
