# SPDX-License-Identifier: Apache-2.0
"""Heads: one per method, each owning its memory."""

from ppcls_ise.heads.cluster_contrast_head import ClusterContrastHead
from ppcls_ise.heads.memory_head import MemoryHead
from ppcls_ise.heads.pli_head import PLIHead, generate_support_samples, pli_degree

HEADS = [ClusterContrastHead, PLIHead]

__all__ = [
    "HEADS",
    "ClusterContrastHead",
    "MemoryHead",
    "PLIHead",
    "generate_support_samples",
    "pli_degree",
]
