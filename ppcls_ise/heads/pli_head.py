# SPDX-License-Identifier: Apache-2.0
"""ISE's head: progressive linear interpolation (PLI) towards neighboring clusters."""

import math

import numpy as np
import paddle
import paddle.nn.functional as F

from ppcls_ise.errors import ConfigError
from ppcls_ise.heads.memory_head import MemoryHead
from ppcls_ise.tensors import as_labels, as_rows


def pli_degree(progress: float, base_lambda: float = 1.0) -> float:
    """``lambda = 1/2 * base_lambda * ln(1 + (e - 1) t)`` (spec: section 7.1).

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
    """Support samples between each sample and its nearest other clusters (spec: section 7.2).

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
    labels = as_labels(labels, features.shape[0], below=centroids.shape[0])
    num_rows, num_clusters = features.shape[0], centroids.shape[0]
    with paddle.no_grad():
        similarity = paddle.matmul(features, centroids, transpose_y=True)  # [B, C]
        own = paddle.full([num_rows, 1], -math.inf, dtype=similarity.dtype)
        similarity = paddle.put_along_axis(similarity, labels.unsqueeze(1), own, axis=1)
        neighbors = paddle.topk(similarity, min(topk, num_clusters), axis=1)[1]
        if topk > num_clusters:
            filler = labels.unsqueeze(1).expand([num_rows, topk - num_clusters])
            neighbors = paddle.concat([neighbors, filler], axis=1)
    support_labels = paddle.repeat_interleave(labels, topk)
    shift = paddle.gather(centroids, neighbors.flatten()) - paddle.gather(centroids, support_labels)
    step = 0.5 * float(np.float32(degree))
    supports = paddle.repeat_interleave(features, topk, axis=0) + step * shift
    return F.normalize(supports, axis=1, epsilon=1e-12), support_labels, neighbors


class PLIHead(MemoryHead):
    """Support samples and their similarity to the cluster memory (spec: sections 7.1 to 7.3).

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

    def compare(self, features: paddle.Tensor, labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        supports, support_labels, _ = generate_support_samples(
            features, labels, self.memory.prototypes, self.degree, self.topk
        )
        rows, row_labels = features, labels
        if self.support_in_memory:
            rows = paddle.concat([features, supports])
            row_labels = paddle.concat([labels, support_labels])
        return {
            "features": features,
            "labels": labels,
            "supports": supports,
            "support_labels": support_labels,
            "logits": self.logits_and_update(rows, row_labels),
            "row_labels": row_labels,
        }
