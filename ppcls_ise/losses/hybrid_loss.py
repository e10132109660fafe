# SPDX-License-Identifier: Apache-2.0
"""Hybrid contrast losses of HHCL."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers.precision import in_float32
from ppcls_ise.losses.cross_entropy import cross_entropy, smoothed_cross_entropy
from ppcls_ise.utils.components import register


@in_float32
def hardest_instance_logits(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """One logit per cluster from its n instance slots (HHCL (7)).

    ``l_c = max_i u_ic`` for ``c != y`` (the most similar instance of another cluster) and
    ``l_y = min_i u_iy`` (the least similar one of the own). Only the selected slot has a gradient.

    Args:
        logits: ``u`` [R, n, C].
        labels: [R] int64.

    Returns:
        [R, C].
    """
    fixed = logits.detach()
    own = F.one_hot(labels.reshape([-1]), logits.shape[2]) > 0
    # argmin / argmax and a gather, because the gradient of min / max goes to every tied element.
    slot = paddle.where(own, fixed.argmin(axis=1), fixed.argmax(axis=1))  # [R, C]
    return paddle.take_along_axis(logits, slot.unsqueeze(1), axis=1).squeeze(1)


@in_float32
def hybrid_contrast_loss(
    hard_logits: paddle.Tensor,
    mean_logits: paddle.Tensor,
    labels: paddle.Tensor,
    *,
    hard_weight: float = 0.5,
    convex: bool = False,
    label_smoothing: bool = False,
) -> paddle.Tensor:
    """Version 1 (HHCL (2), HHCL (3)), with ``z^h = <f, h> / tau`` and ``z^a = <f, a> / tau``::

        as released:  L = w [CE(z^h, y) + (1 - w) CE(z^a, y)]      w = 1/2: one half and a quarter
        convex:       L = w  CE(z^h, y) + (1 - w) CE(z^a, y)       w = 1/2: one half each

    Source: HHCL (arXiv 2109.12333), released code, ``CMhybrid``; ``convex`` is not in it, but is
    what its version 2 does.

    Args:
        hard_logits: ``z^h`` [R, C].
        mean_logits: ``z^a`` [R, C].
        labels: [R] int64.
        hard_weight: w in [0, 1]; 0.5 in the published runs, whatever their command line said.
        convex: weights w and 1 - w instead of w and w (1 - w).
        label_smoothing: `smoothed_cross_entropy` for both terms.

    Returns:
        Scalar (0-D).
    """
    term = smoothed_cross_entropy if label_smoothing else cross_entropy
    mean_weight = (1.0 - hard_weight) * (1.0 if convex else hard_weight)
    return hard_weight * term(hard_logits, labels) + mean_weight * term(mean_logits, labels)


@in_float32
def instance_contrast_loss(
    mean_logits: paddle.Tensor,
    instance_logits: paddle.Tensor,
    labels: paddle.Tensor,
    *,
    mean_weight: float = 0.5,
    label_smoothing: bool = False,
) -> paddle.Tensor:
    """Version 2 (HHCL (8)): ``L = w CE(z^a, y) + (1 - w) CE(l, y)``.

    ``l`` are the `hardest_instance_logits`. Source: HHCL, released code, ``CMhybrid_v2``.

    Args:
        mean_logits: ``z^a = <f, a> / tau`` [R, C].
        instance_logits: ``<f, slot_i> / tau`` [R, n, C].
        labels: [R] int64.
        mean_weight: w in [0, 1].
        label_smoothing: `smoothed_cross_entropy` for both terms.

    Returns:
        Scalar (0-D).
    """
    term = smoothed_cross_entropy if label_smoothing else cross_entropy
    hardest = hardest_instance_logits(instance_logits, labels)
    return mean_weight * term(mean_logits, labels) + (1.0 - mean_weight) * term(hardest, labels)


@register("loss")
class HybridContrastLoss(nn.Layer):
    """HHCL's loss on what `HybridHead` returns, for ``Loss.Train`` in the YAML.

    `hybrid_contrast_loss` for version 1 of the head, `instance_contrast_loss` for version 2.

    Args:
        balance: w, in [0, 1]: the share of the hard prototypes (version 1) or of the mean
            prototypes (version 2). The reference calls both ``hard_weight``. (``weight`` is
            PaddleClas's own key: the weight of this loss among others.)
        convex: for version 1: weights w and 1 - w instead of the released w and w (1 - w).
            Version 2 is convex anyway.
        label_smoothing: smooth the labels (HHCL (10)).
    """

    def __init__(
        self, balance: float = 0.5, *, convex: bool = False, label_smoothing: bool = False
    ) -> None:
        super().__init__()
        if not 0.0 <= balance <= 1.0:
            raise ConfigError(
                f"balance has to be in [0, 1], got {balance} (Loss.Train, HybridContrastLoss)"
            )
        self.balance = balance
        self.convex = convex
        self.label_smoothing = label_smoothing

    def forward(self, output: dict, batch_labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        head = output["logits"]
        if "instance_logits" in head:
            loss = instance_contrast_loss(
                head["logits"],
                head["instance_logits"],
                head["row_labels"],
                mean_weight=self.balance,
                label_smoothing=self.label_smoothing,
            )
        else:
            loss = hybrid_contrast_loss(
                head["logits"],
                head["mean_logits"],
                head["row_labels"],
                hard_weight=self.balance,
                convex=self.convex,
                label_smoothing=self.label_smoothing,
            )
        return {"HybridContrastLoss": loss}
