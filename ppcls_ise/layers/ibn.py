# SPDX-License-Identifier: Apache-2.0
"""Instance norm on one half of the channels, batch norm on the other."""

import paddle
from paddle import nn

from ppcls_ise.errors import ConfigError


class IBN(nn.Layer):
    """Instance-batch normalization: y = [IN(x[:, :h]), BN(x[:, h:])], h = floor(C / 2).

    Instance norm drops what differs from image to image (light, color cast), batch norm keeps what
    tells content apart. Both are affine, epsilon 1e-5.

    Source: Pan et al., "Two at Once: Enhancing Learning and Generalization Capacities via IBN-Net",
    ECCV 2018. Tensors: ``IN.scale``, ``IN.bias``, ``BN.weight``, ``BN.bias``, ``BN._mean``,
    ``BN._variance`` (PyTorch: ``IN.weight``, ``BN.running_mean``, ``BN.running_var``).

    Args:
        num_features: C, at least 2.

    Raises:
        ConfigError: fewer than two channels.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        if num_features < 2:
            raise ConfigError(f"IBN splits its channels in two, so it needs 2, got {num_features}")
        half = num_features // 2
        self.sections = [half, num_features - half]
        self.IN = nn.InstanceNorm2D(half)
        self.BN = nn.BatchNorm2D(num_features - half)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[B, C, H, W] -> the same shape."""
        first, second = paddle.split(x, self.sections, axis=1)
        return paddle.concat([self.IN(first), self.BN(second)], axis=1)
