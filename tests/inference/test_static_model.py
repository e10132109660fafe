# SPDX-License-Identifier: Apache-2.0
"""Static models: the eager numbers, and a training model that notices nothing."""

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.errors import ConfigError, ExportError, WeightsError
from ppcls_ise.inference.static_model import StaticExport, StaticModel, save_static_model
from ppcls_ise.layers import group_batch_norms

SHAPE = [3, 64, 32]
NETS = {
    "plain_gem": ({"name": "PlainConvNet", "channels": [8, 16]}, None, 16, "gem"),
    "PPLCNet": ({"name": "PPLCNet_x0_25"}, "flatten", 1280, "none"),
    "ResNet50": ({"name": "ResNet50_last_stage_stride1"}, "avg_pool", 2048, "none"),
}


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def rec_model(net: str = "plain_gem", group_size: int = 0):
    """A network with statistics that are not those of its start."""
    backbone, stop, width, pooling = NETS[net]
    paddle.seed(3)
    config = {
        "Backbone": dict(backbone),
        "Neck": {"name": "ReIDNeck", "num_features": width, "pooling": pooling},
        "Head": {"name": "PLIHead"},
    }
    if stop:
        config["BackboneStopLayer"] = {"name": stop}
    model = compat.load("ppcls.arch").RecModel(**config)
    if group_size:
        group_batch_norms(model, group_size)
    model.train()
    model.head.eval()
    with paddle.no_grad():
        for _ in range(5):
            model(paddle.randn([8, *SHAPE]) * 2 + 1)
    model.head.train()
    return model


def images(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, *SHAPE)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@paddle.no_grad()
def eager(model, batch: np.ndarray) -> np.ndarray:
    model.eval()
    features = model(paddle.to_tensor(batch))["features"].numpy()
    model.train()
    return features


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("net", "group_size"),
    [("plain_gem", 0), ("plain_gem", 4), ("PPLCNet", 0), ("PPLCNet", 4), ("ResNet50", 4)],
)
def test_a_static_model_computes_the_eager_features(net, group_size, tmp_path):
    model = rec_model(net, group_size)
    save_static_model(model, tmp_path, SHAPE)
    static = StaticModel(tmp_path, threads=1)
    for count in (1, 5, 9):  # one piece, two, three
        result = static(images(count))
        expected = unit(eager(model, images(count)))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())


def test_raw_features_and_other_names(tmp_path):
    model = rec_model()
    save_static_model(model, tmp_path / "a" / "b", SHAPE, name="net", normalize=False)
    result = StaticModel(tmp_path / "a" / "b", name="net", threads=1, use_mkldnn=False)(images(3))
    np.testing.assert_allclose(result, eager(model, images(3)), atol=1e-4)


def test_saving_again_takes_the_weights_of_the_moment(tmp_path):
    model = rec_model()
    export = StaticExport(model, SHAPE)
    export.save(tmp_path)
    before = StaticModel(tmp_path)(images(3))
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.set_value(parameter * 1.5 + 0.01)
    model.neck.feat_bn._mean.set_value(model.neck.feat_bn._mean + 1.0)
    export.save(tmp_path)
    after = StaticModel(tmp_path)(images(3))
    np.testing.assert_allclose(after, unit(eager(model, images(3))), atol=1e-4)
    assert np.abs(after - before).max() > 1e-2


@pytest.mark.parametrize("static", [False, True])
def test_the_model_notices_nothing(static, tmp_path):
    model = rec_model()
    if static:
        model.backbone = paddle.jit.to_static(model.backbone)
    model.backbone.eval()  # a mixture of modes has to survive as well
    model.neck.train()

    def all_of_it():
        modes = [part.training for part in model.sublayers(include_self=True)]
        names = [parameter.name for parameter in model.parameters()]
        stops = [parameter.stop_gradient for parameter in model.parameters()]
        return modes, names, stops, type(model.backbone.forward).__name__, paddle.in_dynamic_mode()

    with paddle.utils.unique_name.guard():
        before = all_of_it()
        paddle.seed(7)
        drawn = paddle.randn([2]).tolist()
        paddle.seed(7)
        save_static_model(model, tmp_path, SHAPE)
        assert paddle.randn([2]).tolist() == drawn
        assert all_of_it() == before
        assert paddle.utils.unique_name.generate("linear") == "linear_0"
    model.head.eval()
    model(paddle.to_tensor(images(4)))["features"].square().mean().backward()
    assert all(p.grad is not None for p in model.neck.parameters() if not p.stop_gradient)


@pytest.mark.skipif(not paddle.base.core.supports_bfloat16(), reason="no bfloat16 on this CPU")
def test_bfloat16_is_close_but_not_equal(tmp_path):
    model = rec_model()
    save_static_model(model, tmp_path, SHAPE)
    full, half = (StaticModel(tmp_path, precision=kind)(images(6)) for kind in ("fp32", "bf16"))
    assert 0.999 < (full * half).sum(axis=1).min()
    assert np.abs(full - half).max() > 1e-6


class _Untraceable(paddle.nn.Layer):
    def forward(self, x):
        return x * float(np.asarray(x).mean())


def test_what_cannot_be_made_static_is_said(tmp_path):
    model = rec_model()
    model.backbone = _Untraceable()
    with pytest.raises(ExportError, match="cannot make this network static"):
        save_static_model(model, tmp_path, SHAPE)
    assert model.training and paddle.in_dynamic_mode()
    model = rec_model()
    model.to(dtype="bfloat16")
    with pytest.raises(ExportError, match="bfloat16.*AMP"):
        save_static_model(model, tmp_path, SHAPE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int8"}, "fp32, bf16, fp16"),
        ({"precision": "fp16"}, "fp32 or bf16"),
        ({"precision": "bf16", "use_mkldnn": False}, "use_mkldnn"),
        ({"device": "tpu"}, "cpu or gpu"),
        ({"use_tensorrt": True}, "needs a GPU"),
    ],
    ids=str,
)
def test_options_that_cannot_be_served(options, words, tmp_path, monkeypatch):
    monkeypatch.setattr(paddle.base.core, "supports_bfloat16", lambda: True)
    save_static_model(rec_model(), tmp_path, SHAPE)
    with pytest.raises(ConfigError, match=words):
        StaticModel(tmp_path, **options)


def test_no_bfloat16_without_the_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(paddle.base.core, "supports_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match="no bfloat16 instructions"):
        StaticModel(tmp_path, precision="bf16")


def test_missing_and_torn_models(tmp_path):
    with pytest.raises(WeightsError, match="there is no static model"):
        StaticModel(tmp_path)
    save_static_model(rec_model(), tmp_path, SHAPE)
    weights = tmp_path / "inference.pdiparams"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot be loaded"):
        StaticModel(tmp_path)


@pytest.mark.parametrize("shape", [[3, 64], [3, 0, 32], [3, 64.0, 32]])
def test_image_shapes_that_are_none(shape, tmp_path):
    with pytest.raises(ConfigError, match="image_shape"):
        save_static_model(rec_model(), tmp_path, shape)
