# SPDX-License-Identifier: Apache-2.0
"""A CPU scales no losses, so a stand-in goes through saving and resuming."""

import numpy as np
import pytest

import ppcls_ise
from tests.conftest import lite_overrides
from tests.engine.test_engine import engine_of


class Scaler:
    """The part of `paddle.amp.GradScaler` that a checkpoint needs; its state changes as one's."""

    def __init__(self):
        self.state = {"scale": np.array([128.0], np.float32), "incr_count": 0, "incr_ratio": 2.0}

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state

    # Develop's loop asks it in every run.

    def scale(self, loss):
        return loss

    def step(self, optimizer):
        optimizer.step()

    def update(self):
        pass


@pytest.mark.slow
def test_loss_scaling_is_resumed(lite_set, tmp_path):
    ppcls_ise.register()
    overrides = lite_overrides(
        lite_set, tmp_path, Global__epochs=1, Global__eval_during_train=False
    )
    engine = engine_of(overrides)
    engine.scaler = Scaler()
    engine.scaler.state |= {"scale": np.array([32.0], np.float32), "incr_count": 7}
    engine.train()
    resumed = engine_of([*overrides, f"Global.checkpoints={engine.run_folder / 'latest'}"])
    resumed.scaler = Scaler()
    resumed.train()
    assert resumed.scaler.state["scale"].tolist() == [32.0]
    assert resumed.scaler.state["scale"].dtype == np.float32
    assert resumed.scaler.state["incr_count"] == 7 and resumed.scaler.state["incr_ratio"] == 2.0
