# SPDX-License-Identifier: Apache-2.0
"""Memories: the prototypes that features are compared with."""

from ppcls_ise.memory.cluster_memory import ClusterMemory
from ppcls_ise.memory.hybrid_memory import HybridMemory

__all__ = ["ClusterMemory", "HybridMemory"]
