# SPDX-License-Identifier: Apache-2.0
"""When training becomes static: only where that was asked for, or pays and is proven."""

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise import static_training
from ppcls_ise.errors import ConfigError
from ppcls_ise.static_trial import difference, network, step

ARCH = {
    "name": "RecModel",
    "Backbone": {"name": "PlainConvNet", "channels": [8, 16]},
    "Neck": {"name": "ReIDNeck", "num_features": 16, "pooling": "gem"},
    "Head": {"name": "PLIHead"},
}


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def config(to_static="auto", device="cpu"):
    return {"Global": {"to_static": to_static, "device": device}, "Arch": ARCH}


@pytest.fixture
def tried(monkeypatch):
    """Calls of the trial, which finds nothing wrong; on a Paddle that may be static, with a large
    network."""
    calls = []
    monkeypatch.setattr(static_training, "trial", lambda config: calls.append(1))
    monkeypatch.setattr(static_training, "_SOUND", paddle.__version__)
    monkeypatch.setattr(static_training, "LEAST_PARAMETERS", 10)
    monkeypatch.setattr(static_training, "set_process_threads", lambda threads: None)
    monkeypatch.setattr(paddle, "set_flags", lambda flags: None)
    return calls


def decide(images=10_000, **options):
    return static_training.use_static_graphs(config(**options), network(ARCH), images)


def test_true_and_false_are_followed_without_a_trial(tried):
    assert [decide(to_static=True), decide(to_static=False)] == [True, False]
    assert not tried


def test_auto_asks_the_trial(tried, monkeypatch, caplog):
    caplog.set_level("INFO", logger="ppcls")
    assert decide() is True and tried == [1]
    monkeypatch.setattr(static_training, "trial", lambda config: "the stem is off by 3")
    assert decide() is False
    assert caplog.text.count("the stem is off by 3") == 1


@pytest.mark.parametrize("case", ["gpu", "small", "short", "Paddle"])
def test_auto_is_eager_where_it_cannot_pay(case, tried, monkeypatch):
    images, device = 10_000, "cpu"
    if case == "gpu":
        device = "gpu"
    elif case == "small":
        monkeypatch.setattr(static_training, "LEAST_PARAMETERS", 10**7)
    elif case == "short":
        images = 100
    else:
        monkeypatch.setattr(static_training, "_SOUND", "1.")
    assert decide(images=images, device=device) is False
    assert not tried


def test_a_trial_notices_each_kind_of_deviation():
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 16), dtype=np.float32)
    once, twice = (step(network(ARCH), images) for _ in range(2))
    assert difference(once, twice) is None
    assert {"the features", "neck.feat_bn._mean"} < set(once)
    assert any(name.startswith("the gradient of backbone") for name in once)
    for name in once:
        wrong = twice | {name: twice[name] + 1.0 + np.abs(twice[name]).max()}
        if name.startswith("the gradient"):
            wrong[name] = twice[name] + 1e6
        assert name in difference(once, wrong)
        assert name in difference(once, {k: v for k, v in twice.items() if k != name})
        assert name in difference(once, twice | {name: twice[name] * np.nan})


@pytest.mark.slow
def test_a_trial_that_cannot_run_says_why_and_disturbs_nothing():
    paddle.seed(4)
    expected = paddle.randn([2]).tolist()
    paddle.seed(4)
    broken = {"Arch": ARCH | {"Neck": {"name": "ReIDNeck", "num_features": 17}}, "Global": {}}
    assert "num_features" in static_training.trial(broken)
    assert paddle.randn([2]).tolist() == expected


def test_other_values_are_refused():
    from ppcls_ise.config import get_config
    from tests.conftest import SYNTHETIC

    with pytest.raises(ConfigError, match=r"Global\.to_static has to be True, False or auto"):
        get_config(str(SYNTHETIC), ["Global.to_static=maybe"])
