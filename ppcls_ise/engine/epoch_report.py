# SPDX-License-Identifier: Apache-2.0
"""One readable line per epoch."""

import logging
import time
from typing import Any

from ppcls_ise import compat
from ppcls_ise.clustering import PseudoLabels
from ppcls_ise.clustering.eps_range import LARGEST_SHARE, MOST_OUTLIERS
from ppcls_ise.engine.callback import Callback, TrainingEngine
from ppcls_ise.engine.clustering_callback import ClusteringCallback, summary


class EpochReport(Callback):
    """Logs clusters, losses, what the head reports, learning rate and time after every epoch."""

    def __init__(self, clustering: ClusteringCallback) -> None:
        self._clustering = clustering
        self._started = 0.0
        self._stepped = False

    def on_epoch_begin(self, engine: TrainingEngine, epoch: int) -> bool:
        self._started = time.perf_counter()
        return True

    def on_epoch_end(self, engine: TrainingEngine, epoch: int) -> None:
        result = self._clustering.result
        assert result is not None
        losses = ", ".join(f"{name} {meter.avg:.4f}" for name, meter in engine.output_info.items())
        self._stepped |= bool(losses)
        parts = [summary(result), losses or "no step taken"]
        parts += [f"{name} {value:.4f}" for name, value in engine.head.report().items()]
        parts.append("lr " + ", ".join(f"{lr.get_lr():.3g}" for lr in engine.lr_sch))
        parts.append(f"{time.perf_counter() - self._started:.1f} s")
        key = self._clustering.options_for(engine.train_dataset).eps_key
        collapse = _collapse(result, key)
        parts += [collapse] if collapse else []
        compat.logger().log(
            logging.WARNING if collapse else logging.INFO,
            f"[Epoch {epoch}/{engine.epochs}] " + " | ".join(parts),
        )
        if epoch == engine.epochs and not self._stepped:
            compat.logger().warning(
                "no epoch found a cluster, so the weights are those that the run began with: "
                f"raise {key}"
            )

    def state(self) -> dict[str, Any]:
        return {"stepped": self._stepped}

    def restore(self, engine: TrainingEngine, state: dict[str, Any]) -> None:
        self._stepped = state["stepped"]


def _collapse(result: PseudoLabels, eps_key: str) -> str:
    """A warning if the clustering says that features collapsed or scattered, else nothing."""
    images = max(len(result.labels), 1)
    if result.largest > LARGEST_SHARE * images:
        return (
            f"COLLAPSE: one cluster holds {100 * result.largest / images:.0f} % of the images; "
            f"lower {eps_key} or Optimizer.lr.learning_rate"
        )
    if result.outlier_share > MOST_OUTLIERS:
        return (
            f"COLLAPSE: {100 * result.outlier_share:.0f} % of the images are outliers; "
            f"raise {eps_key}, or begin with pretrained weights"
        )
    return ""
