# SPDX-License-Identifier: Apache-2.0
"""A small plain-convolution backbone that learns from scratch."""

import paddle
from paddle import nn

from ppcls_ise.errors import ConfigError
from ppcls_ise.utils.components import register


@register("backbone")
class PlainConvNet(nn.Layer):
    """3x3 convolutions of stride 2 with batch norm and ReLU; returns the feature map.

    For demonstrations without pretrained weights: it starts to separate people within minutes on
    a CPU, where a depthwise-convolution net of the same size stays at chance.

    Args:
        channels: output channels of each layer, [3, H, W] -> [channels[-1], H / 2^L, W / 2^L].
    """

    def __init__(self, channels: list[int] | tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ConfigError(f"Arch.Backbone.channels have to be >= 1, got {list(channels)}")
        layers: list[nn.Layer] = []
        for inputs, outputs in zip([3, *channels], channels, strict=False):
            layers += [
                nn.Conv2D(inputs, outputs, 3, stride=2, padding=1, bias_attr=False),
                nn.BatchNorm2D(outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.layers(images)
