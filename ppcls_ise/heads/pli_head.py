# SPDX-License-Identifier: Apache-2.0
"""ISE's head: progressive linear interpolation (PLI) towards neighboring clusters."""

import math
from typing import Any

import numpy as np
import paddle
from paddle.autograd import PyLayer

from ppcls_ise.errors import ConfigError
from ppcls_ise.heads.memory_head import MemoryHead
from ppcls_ise.layers.rows import (
    as_rows,
    host_labels,
    members_by_label,
    row_dots,
    unit_rows_and_lengths,
    upload,
)
from ppcls_ise.utils.components import register


def pli_degree(progress: float, base_lambda: float = 1.0) -> float:
    """``lambda = 1/2 * base_lambda * ln(1 + (e - 1) t)`` (ISE (2)).

    The released code has this factor 1/2 and another one in the interpolation
    (`generate_support_samples`); both are kept.

    Args:
        progress: ``t`` in [0, 1].
        base_lambda: 1.0 in the released recipes.

    Raises:
        ValueError: the progress is out of range.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress has to be in [0, 1], got {progress}")
    return 0.5 * base_lambda * math.log(1.0 + (math.e - 1.0) * progress)


def generate_support_samples(
    features: paddle.Tensor,
    labels: paddle.Tensor,
    centroids: paddle.Tensor,
    degree: float,
    topk: int = 1,
) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
    """Support samples between each sample and its nearest other clusters (ISE (4)).

    For the K clusters ``j`` with the largest ``<f_b, m_j>``, ``j != y_b``::

        s_bk = N(f_b + 1/2 * degree * (m_j - m_{y_b})),    label y_b

    ``f_b`` is used as given and is not detached; the centroids are constants. Source: ISE
    (CVPR 2022), released code. Where fewer than K other clusters exist, the missing supports are
    N(f_b) itself (the reference fails).

    Args:
        features: [B, D].
        labels: [B] int64 in 0 .. C-1.
        centroids: [C, D], the memory before this step's update.
        degree: `pli_degree`, rounded to float32 as in the reference.
        topk: K >= 1.

    Returns:
        supports [B*K, D] with row b's supports at b*K .. b*K + K-1, support_labels [B*K] int64,
        neighbor_index [B, K] int64 (a row's own label where no other cluster is left).

    Raises:
        ValueError: K < 1, or labels that do not fit rows and centroids.
    """
    if topk < 1:
        raise ValueError(f"topk has to be at least 1, got {topk}")
    features = as_rows(features)
    centroids = as_rows(centroids, features.dtype).detach()
    (labels,) = upload(host_labels(labels, features.shape[0], below=centroids.shape[0]))
    support_labels = labels.repeat_interleave(topk)
    with paddle.no_grad():
        similarity = paddle.matmul(features, centroids, transpose_y=True)
        neighbors = nearest_others(similarity, labels, topk)
    supports, _ = _extend(features, _shift(centroids, support_labels, neighbors, degree))
    return supports, support_labels, neighbors


def nearest_others(similarity: paddle.Tensor, labels: paddle.Tensor, topk: int) -> paddle.Tensor:
    """The K columns of largest ``similarity`` [B, C] but for the row's label [B]: [B, K] int64;
    ISE (3).

    Best first, the first of equal ones; the own label where no other column is left. Cost: a copy
    and K passes, where a sort takes much longer.
    """
    own = labels.unsqueeze(1)
    lowest = paddle.full(own.shape, -math.inf, similarity.dtype)
    masked = paddle.put_along_axis(similarity, own, lowest, axis=1)
    found = []
    for _ in range(min(topk, similarity.shape[1] - 1)):
        found.append(masked.argmax(axis=1, keepdim=True))
        masked.put_along_axis_(found[-1], lowest, 1)
    return paddle.concat(found + [own] * (topk - len(found)), axis=1)


def _shift(
    centroids: paddle.Tensor, support_labels: paddle.Tensor, neighbors: paddle.Tensor, degree: float
) -> paddle.Tensor:
    """``1/2 * degree * (m_j - m_y)``, [B*K, D]."""
    shift = paddle.gather(centroids, neighbors.flatten())
    return shift.subtract_(paddle.gather(centroids, support_labels)).scale_(
        0.5 * float(np.float32(degree))
    )


def _extend(features: paddle.Tensor, shift: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """``N(f_b + shift_bk)`` [B*K, D] and the lengths [B*K, 1] that N divides by."""
    topk = shift.shape[0] // max(features.shape[0], 1)
    return unit_rows_and_lengths(features.repeat_interleave(topk, axis=0) + shift)


class _LogitsOfExtended(PyLayer):
    """``z = [f_b m_c; s_bk m_c] / temperature`` in three products instead of four.

    With ``s = (f + shift) / l`` and ``z_b`` known from the search for neighbors::

        z_bk = (z_b + shift_bk m / temperature) / l_bk
        df_b = (dz_b + sum_k dz_bk / l_bk) m / temperature - sum_k (dz_bk z_bk) s_bk / l_bk

    where ``<s, ds> = <dz, z>`` has spared the product of ``dz_bk`` with the memory. K = 1 takes
    3 B C D multiplications, 5 B C D without this and the shared search.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: paddle.Tensor,
        feature_logits: paddle.Tensor,
        shift: paddle.Tensor,
        supports: paddle.Tensor,
        length: paddle.Tensor,
        memory: paddle.Tensor,
        temperature: float,
    ) -> paddle.Tensor:
        num_rows, num_clusters = feature_logits.shape
        ctx.memory, ctx.temperature = memory, temperature
        logits = paddle.matmul(shift / temperature, memory, transpose_y=True)
        logits = logits.reshape([num_rows, -1, num_clusters])
        logits.add_(feature_logits.unsqueeze(1))
        logits.divide_(length.reshape([num_rows, -1, 1]))
        ctx.save_for_backward(logits, supports, length)
        return paddle.concat([feature_logits, logits.reshape([-1, num_clusters])])

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        logits, supports, length = ctx.saved_tensor()
        num_rows, topk, num_clusters = logits.shape
        own, extended = gradient[:num_rows], gradient[num_rows:]
        total = paddle.bmm(
            (1.0 / length).reshape([num_rows, 1, topk]), extended.reshape(logits.shape)
        ).squeeze(1)
        total.add_(own)
        radial = row_dots(extended, logits.reshape([-1, num_clusters])) / length
        radial = paddle.bmm(
            radial.reshape([num_rows, 1, topk]), supports.reshape([num_rows, topk, -1])
        ).squeeze(1)
        result = paddle.matmul(total, ctx.memory).scale_(1.0 / ctx.temperature)
        return result.subtract_(radial), None, None, None, None, None


@register("head")
class PLIHead(MemoryHead):
    """Support samples and their similarity to the cluster memory (ISE (1) to ISE (6)).

    Rows compared with the memory, and fed into it, are [f_1 .. f_B, s_11, s_12, ...].

    Args:
        momentum, temperature, memory: see `ClusterMemory`.
        topk: K, neighboring clusters per sample.
        base_lambda: scale of the interpolation degree.
        support_in_memory: also compare the supports with the memory (PLI). Off, only the batch is
            compared, and the supports serve the label-preserving loss alone (the "LP only" row of
            the ablation).
    """

    def __init__(
        self,
        momentum: float = 0.2,
        temperature: float = 0.05,
        memory: str = "hard",
        topk: int = 1,
        base_lambda: float = 1.0,
        support_in_memory: bool = True,
    ) -> None:
        super().__init__(momentum, temperature, memory)
        if topk < 1:
            raise ConfigError(f"topk has to be at least 1, got {topk} (Arch.Head.topk)")
        self.topk = topk
        self.base_lambda = base_lambda
        self.support_in_memory = support_in_memory

    @property
    def degree(self) -> float:
        """The current lambda, for logs and for the next step."""
        return pli_degree(self.progress, self.base_lambda)

    def report(self) -> dict[str, float]:
        return {"lambda": self.degree}

    def compare(self, features: paddle.Tensor, labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        memory = self.memory.prototypes
        support_host = np.repeat(self.host_labels, self.topk)
        present, members, _ = members_by_label(support_host)
        compared = (
            [self.host_labels, support_host] if self.support_in_memory else [self.host_labels]
        )
        plan = self.memory.plan(np.concatenate(compared))
        support_labels, members, groups, *arrays = upload(
            support_host, members, np.searchsorted(present, self.host_labels), *plan.arrays
        )
        if self.support_in_memory:
            logits = self.memory.logits_of_unit_rows(features.detach())
        else:
            rows = self.updating_by_plan(features, features, plan, arrays)
            logits = self.memory.logits_of_unit_rows(rows)
        neighbors = nearest_others(logits.detach(), labels, self.topk)
        shift = _shift(memory, support_labels, neighbors, self.degree)
        supports, length = _extend(features, shift)
        if not self.support_in_memory:
            row_labels = labels
        else:
            row_labels = paddle.concat([labels, support_labels])
            rows = paddle.concat([features.detach(), supports.detach()])
            rows = self.updating_by_plan(features, rows, plan, arrays)
            fixed = logits, shift, supports.detach(), length
            logits = _LogitsOfExtended.apply(rows, *fixed, memory, self.memory.temperature)
        return {
            "features": features,
            "labels": labels,
            "supports": supports,
            "support_labels": support_labels,
            "support_members": members,
            "support_groups": groups,
            "logits": logits,
            "row_labels": row_labels,
        }
