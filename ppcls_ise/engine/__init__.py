# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's engine with clustering, evaluation and exact checkpoints."""

from ppcls_ise.engine.callback import Callback, TrainingEngine
from ppcls_ise.engine.clustering_callback import ClusteringCallback
from ppcls_ise.engine.engine import UnsupervisedEngine
from ppcls_ise.engine.epoch_report import EpochReport

__all__ = ["Callback", "ClusteringCallback", "EpochReport", "TrainingEngine", "UnsupervisedEngine"]
