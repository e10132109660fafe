# SPDX-License-Identifier: Apache-2.0
"""Cluster Contrast loss: cross-entropy of similarities to the cluster memory."""

import paddle
from paddle import nn

from ppcls_ise.layers.precision import in_float32
from ppcls_ise.losses.cross_entropy import cross_entropy
from ppcls_ise.utils.components import register


@in_float32
def cluster_contrast_loss(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """``L_cc = mean over rows of (log sum_c exp z_rc - z_{r, y_r})`` (CC (5)).

    Args:
        logits: ``z`` [R, C], similarities over temperature.
        labels: [R] int64.

    Returns:
        Scalar (0-D).
    """
    return cross_entropy(logits, labels)


@register("loss")
class ClusterContrastLoss(nn.Layer):
    """`cluster_contrast_loss` on what a memory head returns, for ``Loss.Train`` in the YAML.

    The rows are the batch and, with ISE, its support samples (ISE (6)).
    """

    def forward(self, output: dict, batch_labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        head = output["logits"]
        loss = cluster_contrast_loss(head["logits"], head["row_labels"])
        return {"ClusterContrastLoss": loss}
