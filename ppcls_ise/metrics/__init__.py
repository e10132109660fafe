# SPDX-License-Identifier: Apache-2.0
"""Retrieval and clustering figures: arrays in, arrays out; numpy, scipy and scikit-learn only."""

from ppcls_ise.metrics.cluster_quality import ClusterQuality, cluster_quality, label_stability
from ppcls_ise.metrics.rank import RankResult, evaluate_rank
from ppcls_ise.metrics.re_ranking import re_ranking
from ppcls_ise.metrics.reid_metric import (
    Labels,
    ReIDMetric,
    ReIDResult,
    Side,
    nearest_images,
)

__all__ = [
    "ClusterQuality",
    "RankResult",
    "ReIDMetric",
    "ReIDResult",
    "Labels",
    "Side",
    "cluster_quality",
    "evaluate_rank",
    "label_stability",
    "nearest_images",
    "re_ranking",
]
