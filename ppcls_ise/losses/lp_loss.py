# SPDX-License-Identifier: Apache-2.0
"""Label-preserving loss of ISE."""

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers.precision import in_float32
from ppcls_ise.layers.rows import as_rows, host_labels, members_by_label, upload
from ppcls_ise.utils.components import register


@in_float32
def label_preserving_loss(
    features: paddle.Tensor,
    supports: paddle.Tensor,
    labels: paddle.Tensor,
    support_labels: paddle.Tensor,
    temperature: float = 0.6,
) -> paddle.Tensor:
    """Keep each sample closest to the support samples of its own cluster (ISE (10)).

    With ``E_bq = exp(<f_b, s_q> / T)``::

        pos_b = min over supports q with the label of b of E_bq
        neg_b = sum over the other labels p in the batch of max over supports q of p of E_bq
        loss  = mean over b of -ln(pos_b / (pos_b + neg_b + 1e-6) + 1e-6)

    min and max pass the gradient to the one selected element. Both 1e-6 are the reference's.

    Deviation: the reference finds "the other labels" by cutting the negatives, in row order, into
    runs of K * num_instances; where labels are not laid out in whole blocks it falls back to the
    sum of all negatives, or mixes labels within a run. Here the maximum is taken per label
    whatever the order, which is the same for a regular batch and what is meant for any other.

    Source: ISE (CVPR 2022), released code.

    Args:
        features: unit rows [B, D].
        supports: unit rows [Q, D].
        labels: [B] int64, each of them among ``support_labels``.
        support_labels: [Q] int64.
        temperature: ``T``, positive.

    Returns:
        Scalar (0-D), differentiable in features and supports.

    Raises:
        ValueError: a label has no support sample, labels do not fit the rows, there are no rows,
            or the temperature is not positive.
    """
    _check_temperature(temperature)
    features = as_rows(features)
    supports = as_rows(supports, features.dtype)
    num_rows = features.shape[0]
    if not num_rows or not supports.shape[0]:
        raise ValueError("the label-preserving loss needs at least one row and one support")
    present, members, _ = members_by_label(host_labels(support_labels, supports.shape[0]))
    groups = _group_of(host_labels(labels, num_rows), present)
    return _loss_of_groups(features, supports, *upload(members, groups), temperature)


@in_float32
def _loss_of_groups(
    features: paddle.Tensor,
    supports: paddle.Tensor,
    members: paddle.Tensor,
    groups: paddle.Tensor,
    temperature: float,
) -> paddle.Tensor:
    """The loss, given the supports ``members`` [P, width] of each label in the batch and the label
    ``groups`` [B], in 0 .. P-1, of each row."""
    num_groups, width = members.shape
    # Supports along axis 0: the gradient of a gather along axis 1 is wrong in Paddle 2.6.2.
    similarity = paddle.matmul(supports, features / temperature, transpose_y=True)  # [Q, B]
    grouped = paddle.gather(paddle.exp(similarity), members.flatten())
    by_group = grouped.reshape([num_groups, width, -1])  # E, [P, width, B]

    # argmin / argmax and a gather, because the gradient of min / max goes to every tied element.
    smallest = _select(by_group, by_group.detach().argmin(axis=1, keepdim=True))  # [P, B]
    largest = _select(by_group, by_group.detach().argmax(axis=1, keepdim=True))
    own = F.one_hot(groups, num_groups).t().astype(similarity.dtype)
    positive = (smallest * own).sum(axis=0)
    negative = (largest * (1.0 - own)).sum(axis=0)
    return -paddle.log(positive / (positive + negative + 1e-6) + 1e-6).mean()


def _check_temperature(temperature: float) -> None:
    if not temperature > 0.0:
        raise ConfigError(
            f"temperature has to be positive, got {temperature} (Loss.Train, LPLoss.temperature)"
        )


def _select(values: paddle.Tensor, index: paddle.Tensor) -> paddle.Tensor:
    """``values[p, index[p, 0, b], b]``."""
    return paddle.take_along_axis(values, index, axis=1).squeeze(1)


def _group_of(labels: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Where each label is in the ascending ``present``: [B] int64."""
    group = np.searchsorted(present, labels).clip(max=len(present) - 1)
    if (present[group] != labels).any():
        missing = np.setdiff1d(labels, present).tolist()
        raise ValueError(f"labels without a support sample: {missing[:5]}")
    return group.astype(np.int64)


@register("loss")
class LPLoss(nn.Layer):
    """`label_preserving_loss` on what the PLI head returns, for ``Loss.Train`` in the YAML.

    Args:
        temperature: ``T`` of the loss.
    """

    def __init__(self, temperature: float = 0.6) -> None:
        super().__init__()
        _check_temperature(temperature)
        self.temperature = temperature

    def forward(self, output: dict, batch_labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        head = output["logits"]
        rows = head["features"], head["supports"]
        if "support_groups" in head:  # known to the head, which spares two waits for the device
            groups = head["support_members"], head["support_groups"]
            loss = _loss_of_groups(*rows, *groups, self.temperature)
        else:
            labels = head["labels"], head["support_labels"]
            loss = label_preserving_loss(*rows, *labels, self.temperature)
        return {"LPLoss": loss}
