# SPDX-License-Identifier: Apache-2.0
"""What the engine calls during training."""

from typing import Any


class Callback:
    """Called by `ppcls_ise.engine.UnsupervisedEngine`, which is passed in; does nothing itself."""

    def on_epoch_begin(self, engine: Any, epoch: int) -> bool:
        """Before the first step of ``epoch`` (counted from 1).

        Returns:
            Whether the epoch can be trained; False skips its steps.
        """
        return True

    def on_epoch_resume(self, engine: Any, epoch: int, step: int) -> bool:
        """Instead of `on_epoch_begin`, when ``step`` steps of the epoch were done before."""
        return self.on_epoch_begin(engine, epoch)

    def on_epoch_end(self, engine: Any, epoch: int) -> None:
        """After the last step of ``epoch``, also of a skipped one."""

    def state(self) -> dict[str, Any]:
        """What later epochs depend on: arrays, numbers and texts for a checkpoint."""
        return {}

    def restore(self, engine: Any, state: dict[str, Any]) -> None:
        """Take over what `state` returned before."""
