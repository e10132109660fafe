# SPDX-License-Identifier: Apache-2.0
"""Features by static graphs inside the engine: always those of the current weights."""

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise.engine import static_features
from ppcls_ise.engine.static_features import StaticFeatures
from ppcls_ise.errors import ConfigError
from ppcls_ise.utils import threads
from tests.conftest import lite_overrides
from tests.engine.test_engine import engine_of, log_of, train
from tests.inference.test_static_model import eager, images, rec_model


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def test_changed_weights_and_statistics_change_the_network():
    model = rec_model()
    features = StaticFeatures(model)
    batch = images(3)
    first = features.network(batch)
    assert features.network(images(5, seed=1)) is first  # nothing has changed
    for change in (model.neck.feat_bn._mean, model.backbone.layers[0].weight):
        change.set_value(change * 1.5 + 0.1)
        network = features.network(batch)
        assert network is not first
        expected = eager(model, batch)
        np.testing.assert_allclose(network(batch), expected, atol=1e-4 * np.abs(expected).max())
    assert model.training and model.head.training


def test_another_image_size_is_another_network():
    model = rec_model()
    features = StaticFeatures(model)
    small = np.ascontiguousarray(images(3)[:, :, :32, :16])
    for batch in (images(3), small, images(3)):
        np.testing.assert_allclose(
            features.network(batch)(batch), eager(model, batch), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("reason", ["export", "numbers"])
def test_what_cannot_be_static_is_said_once(reason, monkeypatch, caplog):
    if reason == "export":

        def fails(self, folder):
            raise RuntimeError("no such operator")

        monkeypatch.setattr(static_features.StaticExport, "save", fails)
    else:
        monkeypatch.setattr(
            static_features.StaticModel, "__call__", lambda self, batch: np.ones((len(batch), 16))
        )
    features = StaticFeatures(rec_model())
    assert features.network(images(3)) is None
    assert features.network(images(3)) is None
    assert caplog.text.count("features are computed eagerly") == 1
    assert ("no such operator" if reason == "export" else "are off by") in caplog.text


def test_the_engines_features_are_the_eager_ones(lite_set, tmp_path):
    engine = engine_of(lite_overrides(lite_set, tmp_path))
    engine.warm_up()
    static, _ = engine.query_and_gallery()
    assert engine._static_features._network is not None
    engine._static_features = None
    dynamic, _ = engine.query_and_gallery()
    np.testing.assert_allclose(static[0], dynamic[0], atol=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_eagerly_and_says_so(lite_set, tmp_path, monkeypatch):
    results = []
    for name in ("static", "eager"):
        if name == "eager":
            monkeypatch.setattr(static_features, "StaticExport", None)
        engine = train(lite_overrides(lite_set, tmp_path / name))
        results.append(engine.last_result.mAP)
        assert ("features are computed eagerly" in log_of(tmp_path / name)) == (name == "eager")
        assert "CPU cores" in log_of(tmp_path / name)
    assert results[0] == pytest.approx(results[1], abs=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not paddle.base.core.supports_bfloat16(), reason="no bfloat16 on this CPU")
def test_precision_is_an_option_of_the_config(lite_set, tmp_path):
    more = {"Global__epochs": 1}
    half = train(lite_overrides(lite_set, tmp_path / "c", Global__feature_precision="bf16", **more))
    (rounded, *_), _ = half.query_and_gallery()
    half._static_features = StaticFeatures(half.plain_model)
    (full, *_), _ = half.query_and_gallery()
    assert 1e-6 < np.abs(rounded - full).max() < 0.05


@pytest.mark.parametrize(("value", "words"), [("half", "fp32, bf16, fp16"), ("fp16", "a CPU")])
def test_precisions_that_cannot_be_served(value, words, lite_set, tmp_path):
    with pytest.raises(ConfigError, match=words):
        engine_of(lite_overrides(lite_set, tmp_path, Global__feature_precision=value))


@pytest.mark.parametrize(
    ("user", "local", "static", "eager", "words"),
    [
        (None, None, 8, 1, "OMP_NUM_THREADS would set both"),
        (None, "2", 4, 1, "8 CPU cores for 2 processes"),
        (None, "16", 1, 1, "1 threads for static"),
        ("3", None, 3, 3, "set by OMP_NUM_THREADS"),
    ],
)
def test_threads_are_chosen_and_said(user, local, static, eager, words, monkeypatch):
    monkeypatch.setattr(threads, "core_count", lambda: 8)
    monkeypatch.setattr(threads, "_SET_BY_USER", user)
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    monkeypatch.delenv("PADDLE_LOCAL_SIZE", raising=False)
    if local:
        monkeypatch.setenv("PADDLE_LOCAL_SIZE", local)
    assert (threads.static_threads(), threads.eager_threads()) == (static, eager)
    assert words in threads.describe_threads()
