# SPDX-License-Identifier: Apache-2.0
"""Losses: pure functions, and the layers that the YAML names."""

from ppcls_ise.losses.cluster_contrast_loss import ClusterContrastLoss, cluster_contrast_loss
from ppcls_ise.losses.csa_loss import AggregationLoss, aggregation_loss
from ppcls_ise.losses.hybrid_loss import (
    HybridContrastLoss,
    hybrid_contrast_loss,
    instance_contrast_loss,
)
from ppcls_ise.losses.lp_loss import LPLoss, label_preserving_loss

__all__ = [
    "AggregationLoss",
    "ClusterContrastLoss",
    "HybridContrastLoss",
    "LPLoss",
    "aggregation_loss",
    "cluster_contrast_loss",
    "hybrid_contrast_loss",
    "instance_contrast_loss",
    "label_preserving_loss",
]
