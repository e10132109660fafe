# SPDX-License-Identifier: Apache-2.0
"""CSA + HPS: prototypes from self-attention over a cluster, moved by its hardest sample."""

import math

import numpy as np
import paddle

from ppcls_ise.distributed.collectives import broadcast_array
from ppcls_ise.errors import ConfigError
from ppcls_ise.heads.memory_head import MemoryHead
from ppcls_ise.layers.cluster_aggregation import (
    ClusterAggregation,
    aggregate_clusters,
    gather_groups,
)
from ppcls_ise.layers.rows import members_by_label, unit_rows, upload
from ppcls_ise.utils.components import register

_MEMORIES = ("hps", "hard", "mean")
_INITIALIZATIONS = ("csa", "mean")


def hardest_positives(
    samples: paddle.Tensor, mask: paddle.Tensor, aggregated: paddle.Tensor
) -> paddle.Tensor:
    """The most dispersed sample of each cluster: [P] int64, a column of ``samples``.

    The dispersion of sample j is ``1 - <x_j, N(g)>``, its cosine distance from the aggregated
    representation of its cluster; the first of tied samples counts.

    Args:
        samples: unit rows [P, M, D].
        mask: [P, M] float32, 0 for padding; at least one sample per cluster.
        aggregated: unit rows [P, D].
    """
    similarity = (samples * aggregated.unsqueeze(1)).sum(axis=2)
    return paddle.where(mask > 0, similarity, paddle.full_like(similarity, math.inf)).argmin(axis=1)


def halves(members: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every second row of each label, and then the others, as groups.

    A label with one row in the batch has it in both halves, and nothing to learn from it.

    Args:
        members: [P, M] int64, see `members_by_label`.
        mask: [P, M] int64, 1 for a row of the label and 0 for filler.

    Returns:
        index and mask of 2 P groups, [2 P, (M + 1) // 2] int64: all first halves, all second ones.
    """
    missing = members.shape[1] % 2  # filler that makes both halves equally wide
    members = np.concatenate([members, members[:, :missing]], axis=1)
    mask = np.concatenate([mask, np.zeros_like(mask[:, :missing])], axis=1)
    alone = mask.sum(axis=1) == 1
    mask[alone, 1] = 1  # filler is the first row
    return tuple(np.concatenate([part[:, 0::2], part[:, 1::2]]) for part in (members, mask))


@register("head")
class CSAHead(MemoryHead):
    """Cluster sample aggregation (CSA) and hard positive sampling (HPS).

    * At every clustering the prototypes are ``N(g_c)`` (CSA (4)), the self-attention aggregate of
      each cluster's samples (`ClusterAggregation`), instead of the normalized mean.
    * In a step the rows of each label are split in two halves that are aggregated separately;
      matching them (`AggregationLoss`) trains the attention.
    * The row most dispersed around the aggregate of all rows of its label
      (`hardest_positives`) moves the prototype, in the backward pass as with every memory head:
      ``m_c <- N(mu m_c + (1 - mu) x_j)``.

    The features enter the aggregation detached, so the encoder learns from the contrastive loss
    of the batch alone. `AggregationLoss` has to be among the losses: the attention gets no
    gradient otherwise.

    Source: the idea of "A new robust contrastive learning for unsupervised person
    re-identification" (DOI 10.1007/s13042-023-01997-1). Everything beyond the idea is our choice;
    docs/en/csa.md lists the choices.

    Args:
        num_features: D, that of the neck.
        momentum, temperature: see `ClusterMemory`.
        memory: ``"hps"``, or ``"hard"`` / ``"mean"`` of `ClusterMemory` to leave HPS out.
        initialization: ``"csa"``, or ``"mean"`` for the plain centroids.
        num_heads: heads of the attention.
        attention_dim: values of its queries and keys, of all heads together.
        max_samples: most samples of a cluster that attend to each other at the clustering;
            larger clusters are aggregated in parts.
    """

    def __init__(
        self,
        num_features: int,
        momentum: float = 0.1,
        temperature: float = 0.05,
        memory: str = "hps",
        initialization: str = "csa",
        num_heads: int = 4,
        attention_dim: int = 256,
        max_samples: int = 64,
    ) -> None:
        if memory not in _MEMORIES:
            raise ConfigError(
                f"memory has to be one of {_MEMORIES}, got {memory!r} (Arch.Head.memory)"
            )
        # One row per label reaches the memory with HPS, for which "hard" and "mean" agree.
        super().__init__(momentum, temperature, "mean" if memory == "hps" else memory)
        if initialization not in _INITIALIZATIONS:
            raise ConfigError(
                f"initialization has to be one of {_INITIALIZATIONS}, got {initialization!r} "
                "(Arch.Head.initialization)"
            )
        if max_samples < 1:
            raise ConfigError(
                f"max_samples has to be at least 1, got {max_samples} (Arch.Head.max_samples)"
            )
        self.hard_positives_only = memory == "hps"
        self.initialization = initialization
        self.max_samples = max_samples
        self.aggregation = ClusterAggregation(num_features, num_heads, attention_dim)

    def reset_memory(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        centroids: np.ndarray,
        seed_key: tuple[int, ...],
    ) -> None:
        """Start the memory from the aggregated clusters, by the attention as trained so far.

        Arguments as in `MemoryHead`; every process ends up with the prototypes of process 0.
        """
        if self.initialization == "csa":
            centroids = broadcast_array(
                aggregate_clusters(
                    self.aggregation, features, labels, centroids, seed_key, self.max_samples
                )
            )
        super().reset_memory(features, labels, centroids, seed_key)

    def compare(self, features: paddle.Tensor, labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        present, members, counts = members_by_label(self.host_labels)
        # With HPS one row per label moves the memory, in the order of the labels.
        plan = self.memory.plan(present if self.hard_positives_only else self.host_labels)
        own = (np.arange(members.shape[1]) < counts[:, None]).astype(np.int64)
        *arrays, index, mask, every, every_mask = upload(
            *plan.arrays, *halves(members, own), members, own
        )
        first, second = self._aggregate(*gather_groups(features.detach(), index, mask)).chunk(2)
        rows = features.detach()
        if self.hard_positives_only:
            rows = self._hardest(rows, every, every_mask)
        compared = self.updating_by_plan(features, rows, plan, arrays)
        return {
            "features": features,
            "labels": labels,
            "logits": self.memory.logits_of_unit_rows(compared),
            "row_labels": labels,
            "first_halves": first,
            "second_halves": second,
        }

    @paddle.no_grad()
    def _hardest(
        self, rows: paddle.Tensor, index: paddle.Tensor, mask: paddle.Tensor
    ) -> paddle.Tensor:
        """The `hardest_positives` of each label, by ascending label: [P, D]."""
        samples, mask = gather_groups(rows, index, mask)
        columns = hardest_positives(samples, mask, self._aggregate(samples, mask))
        chosen = paddle.index_sample(index, columns.unsqueeze(1)).squeeze(1)
        return paddle.gather(rows, chosen)

    def _aggregate(self, samples: paddle.Tensor, mask: paddle.Tensor) -> paddle.Tensor:
        """Unit aggregates [G, D] of `gather_groups`."""
        return unit_rows(self.aggregation(samples, mask)[0])
