# SPDX-License-Identifier: Apache-2.0
"""Callbacks of the engine."""

from ppcls_ise.callbacks.base import Callback
from ppcls_ise.callbacks.clustering import ClusteringCallback
from ppcls_ise.callbacks.epoch_report import EpochReport

__all__ = ["Callback", "ClusteringCallback", "EpochReport"]
