# SPDX-License-Identifier: Apache-2.0
"""One readable line per epoch."""

import time
from typing import Any

from ppcls_ise import plugin
from ppcls_ise.callbacks.base import Callback
from ppcls_ise.callbacks.clustering import ClusteringCallback, summary


class EpochReport(Callback):
    """Logs clusters, losses, lambda, learning rate and time after every epoch."""

    def __init__(self, clustering: ClusteringCallback) -> None:
        self._clustering = clustering
        self._started = 0.0
        self._stepped = False

    def on_epoch_begin(self, engine: Any, epoch: int) -> bool:
        self._started = time.perf_counter()
        return True

    def on_epoch_end(self, engine: Any, epoch: int) -> None:
        result = self._clustering.result
        assert result is not None
        losses = ", ".join(f"{name} {meter.avg:.4f}" for name, meter in engine.output_info.items())
        self._stepped |= bool(losses)
        parts = [summary(result), losses or "no step taken"]
        if hasattr(engine.head, "degree"):
            parts.append(f"lambda {engine.head.degree:.4f}")
        parts.append("lr " + ", ".join(f"{lr.get_lr():.3g}" for lr in engine.lr_sch))
        parts.append(f"{time.perf_counter() - self._started:.1f} s")
        plugin.logger().info(f"[Epoch {epoch}/{engine.epochs}] " + " | ".join(parts))
        if epoch == engine.epochs and not self._stepped:
            plugin.logger().warning(
                "no epoch found a cluster, so the weights are those that the run began with: "
                "raise Clustering.eps"
            )
