# SPDX-License-Identifier: Apache-2.0
"""A small plain-convolution backbone that learns from scratch."""

from collections.abc import Sequence

import paddle
from paddle import nn

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers import IBN
from ppcls_ise.utils.components import register


@register("backbone")
class PlainConvNet(nn.Layer):
    """3x3 convolutions of stride 2 with batch norm and ReLU; returns the feature map.

    For demonstrations without pretrained weights: it starts to separate people within minutes on
    a CPU, where a depthwise-convolution net of the same size stays at chance.

    Args:
        channels: output channels of each layer, [3, H, W] -> [channels[-1], H / 2^L, W / 2^L].
        ibn_layers: how many layers from the first have an `IBN` in place of the batch norm.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 128), *, ibn_layers: int = 0) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ConfigError(f"Arch.Backbone.channels have to be >= 1, got {list(channels)}")
        if not 0 <= ibn_layers <= len(channels):
            raise ConfigError(
                f"Arch.Backbone.ibn_layers has to be 0 to {len(channels)}, got {ibn_layers!r}"
            )
        layers: list[nn.Layer] = []
        for i, (inputs, outputs) in enumerate(zip([3, *channels], channels, strict=False)):
            layers += [
                nn.Conv2D(inputs, outputs, 3, stride=2, padding=1, bias_attr=False),
                IBN(outputs) if i < ibn_layers else nn.BatchNorm2D(outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.layers(images)
