# SPDX-License-Identifier: Apache-2.0
"""Losses: pure functions, and the layers that the YAML names."""

from ppcls_ise.losses.cluster_contrast_loss import ClusterContrastLoss, cluster_contrast_loss
from ppcls_ise.losses.lp_loss import LPLoss, label_preserving_loss

LOSSES = [ClusterContrastLoss, LPLoss]

__all__ = [
    "LOSSES",
    "ClusterContrastLoss",
    "LPLoss",
    "cluster_contrast_loss",
    "label_preserving_loss",
]
