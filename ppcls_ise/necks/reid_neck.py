# SPDX-License-Identifier: Apache-2.0
"""Pooling and batch norm between backbone and head."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers import FrozenBiasBatchNorm1D, GeMPooling
from ppcls_ise.utils.components import register

_POOLINGS = ("none", "avg", "gem")


@register("neck")
class ReIDNeck(nn.Layer):
    """Pooling, then 1-d batch norm whose bias is frozen at 0 (CC (2)).

    PaddleClas's ``BNNeck`` means to freeze that bias but trains it; the weights are called
    ``feat_bn.*`` as there, so released ``RecModel`` weights load.

    Args:
        num_features: D, channels of the backbone's output.
        pooling: ``"none"`` where the backbone pools already (``BackboneStopLayer: avg_pool``),
            ``"avg"`` or ``"gem"`` for a feature map.
    """

    def __init__(self, num_features: int, pooling: str | None = "none") -> None:
        super().__init__()
        pooling = pooling or "none"  # YAML and -o read some spellings of none as null
        if pooling not in _POOLINGS:
            raise ConfigError(
                f"pooling has to be one of {_POOLINGS}, got {pooling!r} (Arch.Neck.pooling)"
            )
        if num_features < 1:
            raise ConfigError(f"Arch.Neck.num_features has to be >= 1, got {num_features}")
        self.num_features = num_features
        self.pooling_name = pooling
        if pooling == "gem":
            self.pooling = GeMPooling()
        self.feat_bn = FrozenBiasBatchNorm1D(num_features)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[B, D, H, W] (or [B, D] with pooling ``none``) -> [B, D].

        Raises:
            ConfigError: the backbone gives another number of channels, or has pooled already.
        """
        if self.pooling_name != "none" and (x.ndim != 4 or list(x.shape[2:]) == [1, 1]):
            raise ConfigError(
                f"Arch.Neck.pooling is {self.pooling_name}, but the backbone has pooled already: "
                f"it gives {list(x.shape[1:])} values per image. Set Arch.Neck.pooling to none, or "
                "Arch.BackboneStopLayer.name to the last layer before the backbone's own pooling "
                "(docs/en/backbones.md)"
            )
        if self.pooling_name == "gem":
            x = self.pooling(x)
        elif self.pooling_name == "avg":
            x = F.adaptive_avg_pool2d(x, 1)
        x = x.flatten(1)
        if x.shape[1] != self.num_features:
            raise ConfigError(
                f"the neck got {x.shape[1]} values per image, not num_features="
                f"{self.num_features}: set Arch.Neck.num_features to the backbone's channels, "
                "and Arch.Neck.pooling to avg or gem where the backbone does not pool"
            )
        return self.feat_bn(x)
