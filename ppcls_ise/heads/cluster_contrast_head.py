# SPDX-License-Identifier: Apache-2.0
"""Head of the Cluster Contrast baseline."""

import paddle

from ppcls_ise.heads.memory_head import MemoryHead
from ppcls_ise.utils.components import register


@register("head")
class ClusterContrastHead(MemoryHead):
    """Compare the batch with the cluster memory, nothing else (CC (5)).

    Source: Cluster Contrast for Unsupervised Person Re-Identification (arXiv 2103.11568).
    """

    def compare(self, features: paddle.Tensor, labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        return {
            "features": features,
            "labels": labels,
            "logits": self.logits_and_update(features, self.host_labels),
            "row_labels": labels,
        }
