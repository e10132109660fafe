# SPDX-License-Identifier: Apache-2.0
"""Head of HHCL: the batch against a hybrid memory."""

import numpy as np
import paddle

from ppcls_ise.errors import ConfigError
from ppcls_ise.heads.memory_head import MemoryHead
from ppcls_ise.memory.hybrid_memory import HybridMemory, InstanceMemory
from ppcls_ise.utils.components import register


@register("head")
class HybridHead(MemoryHead):
    """Compare the batch with two kinds of cluster memory (HHCL (1) to HHCL (9)).

    Source: Hard-sample Guided Hybrid Contrast Learning (HHCL, arXiv 2109.12333), released code.
    Goes with `ppcls_ise.losses.HybridContrastLoss`, which holds the weights of the two terms.

    The reference does not normalize the features, this head does: they are unit vectors in both.

    Args:
        version: 1 for hard and mean prototypes (the published runs), 2 for mean prototypes and
            instance slots.
        momentum: weight of the old prototypes, see `HybridMemory`.
        temperature: positive.
        num_instances: slots per cluster of version 2: the sampler's ``num_instances``. Version 1
            has no slots.
    """

    memory: HybridMemory | InstanceMemory

    def __init__(
        self,
        version: int = 1,
        momentum: float = 0.1,
        *,
        temperature: float = 0.05,
        num_instances: int = 16,
    ) -> None:
        super().__init__(momentum, temperature)
        if version not in (1, 2):
            raise ConfigError(f"version has to be 1 or 2, got {version!r} (Arch.Head.version)")
        self.version = version
        self.memory = (
            HybridMemory(momentum, temperature)
            if version == 1
            else InstanceMemory(momentum, temperature, num_instances)
        )

    def reset_memory(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        centroids: np.ndarray,
        seed_key: tuple[int, ...],
    ) -> None:
        """Start the memory from a new clustering.

        Args:
            features: [N, D] float32 unit rows of all training images.
            labels: [N] int64, -1 = outlier.
            centroids: [C, D] float32 unit rows, C >= 1.
            seed_key: seeds the choice of version 2's first instances; the same on every process.
        """
        if isinstance(self.memory, InstanceMemory):
            self.memory.reset(centroids, features, labels, np.random.default_rng(seed_key))
        else:
            self.memory.reset(centroids)

    def compare(self, features: paddle.Tensor, labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        """See `MemoryHead.compare`.

        Returns:
            Version 1: ``logits`` of the hard and ``mean_logits`` of the mean prototypes, [B, C].
            Version 2: ``logits`` of the mean prototypes [B, C] and ``instance_logits`` of the
            slots [B, n, C].
        """
        logits, others = self.logits_and_update(features, self.host_labels)
        return {
            "features": features,
            "labels": labels,
            "logits": logits,
            "mean_logits" if self.version == 1 else "instance_logits": others,
            "row_labels": labels,
        }
