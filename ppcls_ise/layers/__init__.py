# SPDX-License-Identifier: Apache-2.0
"""Layers that necks and models are made of."""

from ppcls_ise.layers.cluster_aggregation import ClusterAggregation
from ppcls_ise.layers.gem_pooling import GeMPooling, gem_pooling
from ppcls_ise.layers.grouped_batch_norm import (
    FrozenBiasBatchNorm1D,
    GroupedBatchNorm,
    group_batch_norms,
)
from ppcls_ise.layers.ibn import IBN

__all__ = [
    "IBN",
    "ClusterAggregation",
    "FrozenBiasBatchNorm1D",
    "GeMPooling",
    "GroupedBatchNorm",
    "gem_pooling",
    "group_batch_norms",
]
