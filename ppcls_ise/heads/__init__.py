# SPDX-License-Identifier: Apache-2.0
"""Heads: one per method, each owning its memory."""

from ppcls_ise.heads.cluster_contrast_head import ClusterContrastHead
from ppcls_ise.heads.csa_head import CSAHead
from ppcls_ise.heads.hybrid_head import HybridHead
from ppcls_ise.heads.memory_head import MemoryHead
from ppcls_ise.heads.pli_head import PLIHead, generate_support_samples, pli_degree

__all__ = [
    "CSAHead",
    "ClusterContrastHead",
    "HybridHead",
    "MemoryHead",
    "PLIHead",
    "generate_support_samples",
    "pli_degree",
]
