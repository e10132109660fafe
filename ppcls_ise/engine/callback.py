# SPDX-License-Identifier: Apache-2.0
"""What the engine calls during training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from paddle import nn
from paddle.io import DataLoader

from ppcls_ise.clustering import PseudoLabels
from ppcls_ise.compat import Config
from ppcls_ise.data import IdentitySampler, ReIDDataset
from ppcls_ise.engine.feature_extraction import Features
from ppcls_ise.engine.feature_storage import FeatureStorage
from ppcls_ise.heads import MemoryHead


class LastClustering(Protocol):
    """What is known of the last clustering."""

    result: PseudoLabels | None


class TrainingEngine(Protocol):
    """What callbacks and checkpoints use of `ppcls_ise.engine.UnsupervisedEngine`."""

    config: Config
    device: str
    global_step: int
    has_pretrained_weights: bool
    settings: dict[str, Any]
    # PaddleClas's own: meters by the names of losses, schedules, optimizers, the losses as a layer.
    output_info: dict[str, Any]
    lr_sch: Sequence[Any]
    optimizer: Sequence[Any]
    train_loss_func: nn.Layer

    @property
    def callbacks(self) -> Sequence["Callback"]: ...

    @property
    def clustering(self) -> LastClustering: ...

    @property
    def plain_model(self) -> nn.Layer: ...

    @property
    def head(self) -> MemoryHead: ...

    @property
    def epochs(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def train_dataset(self) -> ReIDDataset: ...

    @property
    def train_sampler(self) -> IdentitySampler: ...

    @property
    def num_workers(self) -> int: ...

    @property
    def use_shared_memory(self) -> bool: ...

    @property
    def run_folder(self) -> Path: ...

    def extract(
        self, loader: DataLoader, *, title: str, storage: FeatureStorage | None = None
    ) -> Features: ...

    def stop_if_asked(self) -> None: ...

    def write_list(self, name: str, lines: list[str]) -> Path: ...


class Callback:
    """Called by `ppcls_ise.engine.UnsupervisedEngine`, which is passed in; does nothing itself."""

    def on_epoch_begin(self, engine: TrainingEngine, epoch: int) -> bool:
        """Before the first step of ``epoch`` (counted from 1).

        Returns:
            Whether the epoch can be trained; False skips its steps.
        """
        return True

    def on_epoch_resume(self, engine: TrainingEngine, epoch: int, step: int) -> bool:
        """Instead of `on_epoch_begin`, when ``step`` steps of the epoch were done before."""
        return self.on_epoch_begin(engine, epoch)

    def on_epoch_end(self, engine: TrainingEngine, epoch: int) -> None:
        """After the last step of ``epoch``, also of a skipped one."""

    def state(self) -> dict[str, Any]:
        """What later epochs depend on: arrays, numbers and texts for a checkpoint."""
        return {}

    def restore(self, engine: TrainingEngine, state: dict[str, Any]) -> None:
        """Take over what `state` returned before."""
