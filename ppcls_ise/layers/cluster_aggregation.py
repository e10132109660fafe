# SPDX-License-Identifier: Apache-2.0
"""Multi-head self-attention over the samples of a cluster."""

import math

import numpy as np
import paddle
from paddle import nn

from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.errors import ConfigError

_PARTS_AT_ONCE = 32


class ClusterAggregation(nn.Layer):
    """Aggregate the samples of each cluster by multi-head self-attention: CSA (1) to CSA (3).

    For one cluster of n rows x_1 .. x_n in D dimensions, X = sqrt(D) x and H heads h of d values::

        A_h = softmax over j of <X_i Q_h, X_j K_h> / sqrt(d)           [n, n]
        w_j = mean over h and i of A_h[i, j]                           [n], sums to 1
        g   = mean over h and i of sum_j A_h[i, j] x_j = sum_j w_j x_j [D]

    ``w_j`` is the attention that sample j receives. The values are the samples themselves, so
    ``g`` lies between them and can be compared with features. Nothing depends on the order of the
    samples. Q starts at zero: every sample weighs 1 / n and ``g`` is the plain mean until the
    layer has been trained. (K gets its first gradient once Q has moved, after one step.)

    Source: the idea of "A new robust contrastive learning for unsupervised person
    re-identification" (DOI 10.1007/s13042-023-01997-1); the equations are ours.

    Args:
        num_features: D.
        num_heads: H.
        attention_dim: H d, a multiple of H.
    """

    def __init__(self, num_features: int, num_heads: int = 4, attention_dim: int = 256) -> None:
        super().__init__()
        if num_features < 1:
            raise ConfigError(
                f"num_features has to be at least 1, got {num_features} (Arch.Head.num_features)"
            )
        if num_heads < 1 or attention_dim < 1 or attention_dim % num_heads:
            raise ConfigError(
                f"attention_dim ({attention_dim}) has to be a positive multiple of num_heads "
                f"({num_heads}) (Arch.Head.attention_dim, Arch.Head.num_heads)"
            )
        self.num_features = num_features
        self.num_heads = num_heads
        shape = [num_features, attention_dim]
        zero, spread = nn.initializer.Constant(0.0), nn.initializer.XavierUniform()
        self.query = self.create_parameter(shape, default_initializer=zero)
        self.key = self.create_parameter(shape, default_initializer=spread)

    def forward(
        self, samples: paddle.Tensor, mask: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """
        Args:
            samples: [G, M, D] float32, the rows of G clusters, padded to M.
            mask: [G, M] float32, 1 for a sample and 0 for padding, whose (finite) content is
                ignored.

        Returns:
            ``g`` [G, D], not normalized, and ``w`` [G, M], 0 for padding. Both are zero for a
            cluster without samples.

        Cost: O(G M (D H d + M H d)) time, O(G M (D + H M)) memory.
        """
        if samples.shape[2] != self.num_features:
            raise ConfigError(
                f"the head got {samples.shape[2]} values per image, not num_features="
                f"{self.num_features}: set Arch.Head.num_features to Arch.Neck.num_features"
            )
        query, key = self._heads(samples, self.query), self._heads(samples, self.key)
        scores = paddle.matmul(query, key, transpose_y=True) / math.sqrt(query.shape[3])
        scores = scores - 1e9 * (1.0 - mask).unsqueeze([1, 2])
        attention = nn.functional.softmax(scores, axis=-1).mean(axis=1)  # [G, M, M]
        count = mask.sum(axis=1, keepdim=True).clip(min=1.0)
        # Paddle's softmax on a CPU gives no less than exp(-64), hence the second mask.
        weights = (attention * mask.unsqueeze(2)).sum(axis=1) / count * mask
        return (weights.unsqueeze(2) * samples).sum(axis=1), weights

    def _heads(self, samples: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
        """[G, M, D] -> [G, H, M, d]. Mixed precision (O2) halves weights, but not these rows."""
        rows = paddle.matmul(math.sqrt(self.num_features) * samples, weight.astype(samples.dtype))
        return rows.reshape([*rows.shape[:2], self.num_heads, -1]).transpose([0, 2, 1, 3])


def group_members(labels: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The labels present in ``labels`` [N] but -1, ascending, and the rows of each, ascending."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    names, start = np.unique(labels[order], return_index=True)
    return names, np.split(order, start[1:]) if len(names) else []


def pad_groups(groups: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Index arrays of unequal length, none of them empty, as a rectangle.

    Returns:
        index [G, M] int64, each row filled up with its first entry; mask [G, M] float32, 0 for
        the filler.
    """
    width = max(map(len, groups))
    index = np.zeros((len(groups), width), np.int64)
    mask = np.zeros((len(groups), width), np.float32)
    for row, group in enumerate(groups):
        index[row] = group[0]
        index[row, : len(group)] = group
        mask[row, : len(group)] = 1.0
    return index, mask


def gather_groups(
    rows: paddle.Tensor, index: paddle.Tensor, mask: paddle.Tensor
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """The ``rows`` [R, D] of each group: samples [G, M, D] and mask [G, M] float32.

    Args:
        index: [G, M] int64, see `pad_groups`.
        mask: [G, M], 1 for a row of the group and 0 for filler; any number type.
    """
    samples = paddle.gather(rows, index.flatten())
    return samples.reshape([*index.shape, rows.shape[1]]), mask.astype("float32")


@paddle.no_grad()
def aggregate_clusters(
    aggregation: ClusterAggregation,
    features: np.ndarray,
    labels: np.ndarray,
    centroids: np.ndarray,
    seed_key: tuple[int, ...],
    max_samples: int = 64,
) -> np.ndarray:
    """Unit aggregated representation of every cluster: [C, D] float32.

    A cluster of n > ``max_samples`` rows is dealt at random into ceil(n / max_samples) parts of
    nearly equal size; its parts are aggregated one by one and averaged by size. So every row
    counts, and with a fresh layer the result is the plain mean whatever n.

    Args:
        aggregation: the layer, with its current weights.
        features: [N, D] float32.
        labels: [N] int64 in 0 .. C-1, or -1 (outlier).
        centroids: [C, D] float32, kept where a cluster has no rows or sums up to zero.
        seed_key: with the cluster's number, the seed of the dealing.
        max_samples: most rows attended to at once.

    Cost: O(N D (H d)) time; memory beyond the arguments O(C D), and that of `ClusterAggregation`
    for 32 parts.
    """
    names, groups = group_members(labels)
    owners, shares, parts = [], [], []
    for name, group in zip(names.tolist(), groups, strict=True):
        if len(group) > max_samples:
            group = np.random.default_rng((*seed_key, name)).permutation(group)
        for part in np.array_split(group, math.ceil(len(group) / max_samples)):
            owners.append(name)
            shares.append(len(part) / len(group))
            parts.append(part)
    total = np.zeros(centroids.shape, np.float32)
    for start in range(0, len(parts), _PARTS_AT_ONCE):
        chunk = slice(start, start + _PARTS_AT_ONCE)
        index, mask = pad_groups(parts[chunk])
        pooled, _ = aggregation(paddle.to_tensor(features[index]), paddle.to_tensor(mask))
        share = np.asarray(shares[chunk], np.float32)[:, None]
        np.add.at(total, owners[chunk], share * pooled.numpy())
    norm = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(norm > 1e-12, unit_rows(total), centroids).astype(np.float32)
