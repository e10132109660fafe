# SPDX-License-Identifier: Apache-2.0
"""Generalized-mean pooling."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppcls_ise.layers.precision import in_float32


def gem_pooling(feature_map: paddle.Tensor, power: paddle.Tensor) -> paddle.Tensor:
    """``(mean over positions of max(v, 1e-6)^p)^(1/p)``: [B, C, H, W] -> [B, C] (CC (1)).

    In float32 under mixed precision, where the powers would overflow: 41^3 is beyond float16.

    Source: Radenovic et al., "Fine-tuning CNN image retrieval with no human annotation".
    """
    if paddle.in_dynamic_mode():
        return _gem(feature_map, power)
    # The same mean. In a static graph oneDNN would take `mean`, and print a line about it.
    powers = feature_map.clip(min=1e-6).pow(power)
    return F.adaptive_avg_pool2d(powers, 1).flatten(1).pow(1.0 / power)


@in_float32
def _gem(feature_map: paddle.Tensor, power: paddle.Tensor) -> paddle.Tensor:
    return feature_map.clip(min=1e-6).pow(power).mean(axis=[2, 3]).pow(1.0 / power)


class GeMPooling(nn.Layer):
    """`gem_pooling` with one learnable power, 3 at first."""

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.p = self.create_parameter([1], default_initializer=nn.initializer.Constant(power))

    def forward(self, feature_map: paddle.Tensor) -> paddle.Tensor:
        return gem_pooling(feature_map, self.p)
