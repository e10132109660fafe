# SPDX-License-Identifier: Apache-2.0
"""Batch normalization over groups of consecutive rows."""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppcls_ise.errors import ConfigError


def differentiable(bias: paddle.Tensor) -> paddle.Tensor:
    """``bias``, or for a frozen one a stand-in whose gradient goes nowhere.

    Paddle's batch norm gives its WEIGHT no gradient either when the bias takes none, silently
    (seen in 2.6.2 and 3.3.1), so a frozen bias may not be passed as it is.
    """
    if not bias.stop_gradient:
        return bias
    stand_in = bias.detach()
    stand_in.stop_gradient = False
    return stand_in


class FrozenBiasBatchNorm1D(nn.BatchNorm1D):
    """Batch norm whose bias stays 0 while its weight is trained."""

    def __init__(self, num_features: int, momentum: float = 0.9, epsilon: float = 1e-5) -> None:
        super().__init__(num_features, momentum=momentum, epsilon=epsilon)
        self.bias.stop_gradient = True

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[B, C] -> [B, C]."""
        return F.batch_norm(
            x,
            self._mean,
            self._variance,
            self.weight,
            differentiable(self.bias) if self.training else self.bias,
            training=self.training,
            momentum=self._momentum,
            epsilon=self._epsilon,
        )


class GroupedBatchNorm(nn.Layer):
    """Batch norm whose training statistics are those of ``group_size`` consecutive rows.

    The published recipes train on 4 cards x 64 rows with unsynchronized batch norm: each card
    normalizes its own 64 rows, and only the first card's running statistics survive
    (CC (2)). One card with 256 rows and ``group_size=64`` computes the same.

    The running variance takes the UNBIASED batch variance (n / (n - 1)), which is the convention
    of the framework that the recipes were published for; Paddle's own layer takes the biased one
    on CPU. Normalization itself uses the biased variance, as everywhere.

    Parameters and buffers are those of the layer it replaces, under the same names, so weight
    files do not change. A batch of fewer than ``group_size`` rows is one group; a last, shorter
    group is normalized on its own (a single row joins the group before it).

    Args:
        source: the batch-norm layer to replace (``nn.BatchNorm``, ``nn.BatchNorm1D/2D``).
        group_size: rows per group, at least 2.
    """

    def __init__(self, source: nn.Layer, group_size: int) -> None:
        super().__init__()
        if group_size < 2:
            raise ConfigError(f"Arch.bn_group_size has to be at least 2, got {group_size}")
        layout = getattr(source, "_data_format", None) or source._data_layout
        if layout in ("NHWC", "NLC"):
            raise ConfigError(
                f"groups of rows need channels first, not {layout}: leave out "
                "data_format of Arch.Backbone, or set Arch.bn_group_size to null"
            )
        self.group_size = group_size
        self.momentum = source._momentum
        self.epsilon = source._epsilon
        self.weight, self.bias = source.weight, source.bias
        # Paddle keeps the running statistics as parameters without gradient.
        self._mean, self._variance = source._mean, source._variance
        self.training = source.training

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """[B, C] or [B, C, H, W] -> the same shape."""
        if not self.training:
            return self._normalize(x, self._mean, self._variance, training=False)
        sections = self._sections(x.shape[0])
        groups = [x] if len(sections) < 2 else paddle.split(x, sections)
        self._update_running_statistics(groups[0])
        # The scratch statistics are thrown away: a group's own are used, and Paddle's update of
        # the running ones has the other convention.
        scratch = paddle.zeros_like(self._mean), paddle.ones_like(self._variance)
        parts = [self._normalize(group, *scratch, training=True) for group in groups]
        return parts[0] if len(parts) == 1 else paddle.concat(parts)

    def _sections(self, num_rows: int) -> list[int]:
        whole, rest = divmod(num_rows, self.group_size)
        sections = [self.group_size] * whole + [rest] * (rest > 0)
        if rest == 1 and whole:  # one row alone would be normalized to zero
            sections[-2:] = [self.group_size + 1]
        return sections

    def _normalize(
        self, x: paddle.Tensor, mean: paddle.Tensor, variance: paddle.Tensor, *, training: bool
    ) -> paddle.Tensor:
        bias = differentiable(self.bias) if training else self.bias
        return F.batch_norm(
            x, mean, variance, self.weight, bias, training=training, epsilon=self.epsilon
        )

    @paddle.no_grad()
    def _update_running_statistics(self, group: paddle.Tensor) -> None:
        """Nothing here waits for the device; ``paddle.var`` and ``set_value`` do."""
        group = group.detach()
        if group.dtype != paddle.float32:
            group = group.astype("float32")
        axes = [0, *range(2, group.ndim)]
        count = math.prod(group.shape) // group.shape[1]
        mean = group.mean(axis=axes, keepdim=True)
        squares = (group - mean).pow_(2).sum(axis=axes)
        for running, current in (
            (self._mean, mean.flatten()),
            (self._variance, squares / paddle.full([1], max(count - 1, 1), "float32")),
        ):
            running.scale_(self.momentum).add_((1.0 - self.momentum) * current)


def group_batch_norms(model: nn.Layer, group_size: int) -> int:
    """Replace every batch-norm layer below ``model`` by a `GroupedBatchNorm`, in place.

    Returns:
        How many layers were replaced.

    Raises:
        ConfigError: there is none, or one of them synchronizes over processes.
    """
    replaced = _replace(model, group_size)
    if not replaced:
        raise ConfigError(
            "Arch.bn_group_size is set, but this network has no batch norm to group: set it to null"
        )
    return replaced


def _replace(model: nn.Layer, group_size: int) -> int:
    replaced = 0
    for name, child in list(model.named_children()):
        if isinstance(child, nn.SyncBatchNorm):
            raise ConfigError(
                "batch norm is either synchronized over processes or grouped: set "
                "Arch.use_sync_bn to False or Arch.bn_group_size to null"
            )
        if isinstance(child, nn.BatchNorm | nn.BatchNorm1D | nn.BatchNorm2D):
            setattr(model, name, GroupedBatchNorm(child, group_size))
            replaced += 1
        else:
            replaced += _replace(child, group_size)
    return replaced
