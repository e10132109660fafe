# SPDX-License-Identifier: Apache-2.0
"""What a predictor on a card is asked for; a recorder stands in for the card."""

from types import SimpleNamespace

import pytest

from ppcls_ise.errors import ConfigError
from ppcls_ise.inference import static_model


class Recorder:
    """Notes every call with its arguments."""

    def __init__(self):
        self.calls = {}

    def __getattr__(self, name):
        return lambda *args, **options: self.calls.__setitem__(name, (args, options))


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder with a .pdmodel and its description, and a Paddle with TensorRT."""
    (tmp_path / "inference.pdmodel").write_bytes(b"")
    (tmp_path / "inference.yml").write_text("", encoding="utf-8")
    read = lambda folder: SimpleNamespace(image_shape=(3, 64, 32))  # noqa: E731
    monkeypatch.setattr(static_model.InferenceFile, "read", staticmethod(read))
    for kind in ("compile", "runtime"):
        monkeypatch.setattr(
            static_model.inference, f"get_trt_{kind}_version", lambda: (8, 6, 1), raising=False
        )
    return tmp_path


@pytest.mark.parametrize(("precision", "kind"), [("fp32", "Float32"), ("fp16", "Half")])
def test_tensorrt_knows_every_batch_size(model, precision, kind):
    config = Recorder()
    static_model._use_gpu(config, precision)
    static_model._use_tensorrt(config, precision, model, "inference")
    wanted = getattr(static_model.inference.PrecisionType, kind)
    assert config.calls["enable_use_gpu"][0] == (256, 0, wanted)
    assert config.calls["enable_tensorrt_engine"][1]["precision_mode"] == wanted
    least, most, best = config.calls["set_trt_dynamic_shape_info"][0]
    assert least == {"x": [1, 3, 64, 32]} and most == {"x": [256, 3, 64, 32]}
    assert best == {"x": [64, 3, 64, 32]}
    assert config.calls["enable_tensorrt_engine"][1]["max_batch_size"] == 256


@pytest.mark.parametrize(
    ("kind", "message"), [("compile", "built without TensorRT"), ("runtime", "libnvinfer")]
)
def test_tensorrt_that_is_not_there_is_said(model, monkeypatch, kind, message):
    monkeypatch.setattr(static_model.inference, f"get_trt_{kind}_version", lambda: (0, 0, 0))
    with pytest.raises(ConfigError, match=message):
        static_model._use_tensorrt(Recorder(), "fp32", model, "inference")


def test_models_of_paddle_3_are_refused(model):
    (model / "inference.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="TensorRT takes the .pdmodel.*use_tensorrt to False"):
        static_model._use_tensorrt(Recorder(), "fp32", model, "inference")
