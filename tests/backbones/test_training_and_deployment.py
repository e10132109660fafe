# SPDX-License-Identifier: Apache-2.0
"""Small transformers and the IBN-a ResNet in the engine: resuming, optimizers, static graphs,
export, ONNX, bf16."""

import importlib.util

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.engine.static_features import StaticFeatures
from ppcls_ise.inference.static_model import StaticModel, save_static_model
from ppcls_ise.weights.conversion import convert, to_torch, write_torch
from tests.conftest import SYNTHETIC
from tests.engine.resume.test_resume import latest, overrides_of, start
from tests.engine.test_engine import digest, log_of

ONNX = all(importlib.util.find_spec(name) for name in ("paddle2onnx", "onnxruntime"))
HEIGHT, WIDTH, FEATURES = 32, 16, 12
VIT = {
    "name": "ReIDViT",
    "embed_dim": FEATURES,
    "depth": 3,
    "num_heads": 3,
    "image_size": [HEIGHT, WIDTH],
}
SIZES = [
    f"{place}.0.ResizeImage.size=[{WIDTH},{HEIGHT}]"
    for place in (
        "Clustering.transform_ops",
        "DataLoader.Train.dataset.transform_ops",
        "DataLoader.Eval.Query.dataset.transform_ops",
        "DataLoader.Eval.Gallery.dataset.transform_ops",
    )
]
NETWORKS = {
    "ViT": ({**VIT}, None, FEATURES),
    "ViT_ics": ({**VIT, "conv_stem": True, "drop_path_rate": 0.3}, None, FEATURES),
    "IBN": ({"name": "ResNet50_IBN_a"}, {"name": "avg_pool"}, 2048),
}
# IBN-a on 32 x 16 would take statistics over 2 positions in its third stage: mostly rounding.
SHAPES = {
    "ViT": [3, HEIGHT, WIDTH],
    "ViT_ics": [3, HEIGHT, WIDTH],
    "IBN": [3, 2 * HEIGHT, 2 * WIDTH],
}


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def overrides(root, output, backbone, *more, **settings) -> list[str]:
    return [
        *overrides_of(root, output, **settings),
        f"Arch.Backbone={backbone}",
        f"Arch.Neck.num_features={FEATURES}",
        "Arch.Neck.pooling='none'",
        f"Global.image_shape=[3,{HEIGHT},{WIDTH}]",
        *SIZES,
        *more,
    ]


SGD = "Optimizer={'name': 'SGD', 'lr': {'name': 'Constant', 'learning_rate': 0.01}}"
MOMENTUM = (
    "Optimizer={'name': 'Momentum', 'momentum': 0.9, 'lr': {'name': 'Step', 'step_size': 1, "
    "'gamma': 0.1, 'learning_rate': 0.01}, 'regularizer': {'name': 'L2', 'coeff': 0.0005}}"
)


@pytest.mark.parametrize(
    "optimizer", [MOMENTUM, pytest.param(SGD, marks=pytest.mark.long)], ids=["momentum", "SGD"]
)
def test_a_resumed_transformer_drops_the_paths_of_a_straight_one(lite_set, tmp_path, optimizer):
    backbone = {**VIT, "conv_stem": True, "drop_path_rate": 0.5}
    straight, stopped = (
        overrides(lite_set, tmp_path / output, backbone, optimizer) for output in "ab"
    )
    whole = start(straight)
    start(stopped, stop=(1, 2))
    start([*stopped, latest(tmp_path / "b")], stop=(2, 1))
    engine = start([*stopped, latest(tmp_path / "b")])
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert engine.last_result.mAP == whole.last_result.mAP
    start(overrides(lite_set, tmp_path / "c", {**backbone, "drop_path_rate": 0.0}, optimizer))
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_a_converted_checkpoint_starts_a_training(lite_set, tmp_path):
    """DINO's teacher of another image size -> file -> backbone weights of a run."""
    big = compat.lookup("backbone", "ReIDViT")(
        **{**{k: v for k, v in VIT.items() if k != "name"}, "image_size": [64, 32]}
    )
    theirs, _ = to_torch({n: v.numpy() for n, v in big.state_dict().items()}, source="x")
    write_torch(tmp_path / "dino.pth", {f"backbone.{name}": v for name, v in theirs.items()})
    convert(tmp_path / "dino.pth", tmp_path / "w.pdparams")
    backbone = {**VIT, "pretrained": str(tmp_path / "w.pdparams")}
    engine = start(overrides(lite_set, tmp_path / "run", backbone, Global__epochs=1))
    text = log_of(tmp_path / "run")
    assert "tensors loaded; pos_embed resized from 8 positions to (2, 1)" in text
    assert "warmed the batch-norm statistics" not in text
    assert np.isfinite(engine.last_result.mAP)


def rec_model(network: str):
    """With statistics that are not those of its start."""
    backbone, stop, width = NETWORKS[network]
    paddle.seed(3)
    config = {
        "Backbone": dict(backbone),
        "Neck": {"name": "ReIDNeck", "num_features": width, "pooling": "none"},
        "Head": {"name": "PLIHead"},
    } | ({"BackboneStopLayer": dict(stop)} if stop else {})
    compat.load("ppcls.utils.logger").init_logger()
    model = compat.load("ppcls.arch").RecModel(**config)
    model.train()
    model.head.eval()
    with paddle.no_grad():
        for _ in range(5):
            model(paddle.randn([8, *SHAPES[network]]) * 2 + 1)
    model.head.train()
    return model


def images(network: str, count: int) -> np.ndarray:
    shape = (count, *SHAPES[network])
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@paddle.no_grad()
def eager(model, batch: np.ndarray) -> np.ndarray:
    model.eval()
    features = model(paddle.to_tensor(batch))["features"].numpy()
    model.train()
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_static_model_computes_the_eager_features(network, tmp_path):
    model = rec_model(network)
    save_static_model(model, tmp_path, SHAPES[network])
    static = StaticModel(tmp_path, threads=1)
    for count in (1, 5, 9):
        batch = images(network, count)
        expected = eager(model, batch)
        np.testing.assert_allclose(static(batch), expected, atol=1e-5)
    assert static(batch[:0]).shape == (0, NETWORKS[network][2])
    if paddle.base.core.supports_bfloat16():
        half = StaticModel(tmp_path, precision="bf16")(batch)
        assert (half * expected).sum(axis=1).min() > 0.99
        assert np.abs(half - expected).max() > 1e-6


@pytest.mark.long
@pytest.mark.parametrize("network", NETWORKS)
def test_features_of_a_training_are_static(network):
    model = rec_model(network)
    features = StaticFeatures(model)
    batch = images(network, 4)
    static = features.network(batch)
    assert static is not None
    got = static(batch)
    got /= np.linalg.norm(got, axis=1, keepdims=True)
    np.testing.assert_allclose(got, eager(model, batch), atol=1e-4)


@pytest.mark.skipif(not ONNX, reason="the extra onnx is not installed")
@pytest.mark.parametrize("network", NETWORKS)
def test_onnx_gives_the_eager_features(network, tmp_path):
    from ppcls_ise.inference import onnx_model

    model = rec_model(network)
    save_static_model(model, tmp_path, SHAPES[network])
    converted = onnx_model.OnnxModel(onnx_model.convert(tmp_path, "inference"))
    for count in (1, 5):
        batch = images(network, count)
        np.testing.assert_allclose(converted(batch), eager(model, batch), atol=1e-5)


@pytest.mark.slow
def test_a_vit_small_trains_from_a_converted_checkpoint(lite_set, tmp_path):
    """The network of ViT_market with small images, from a file in DINO's layout."""
    network = compat.lookup("backbone", "ViT_small_patch16_reid")(
        image_size=[64, 32], conv_stem=True
    )
    theirs, _ = to_torch({n: v.numpy() for n, v in network.state_dict().items()}, source="x")
    wrapped = {f"module.backbone.{name}": value for name, value in theirs.items()}
    write_torch(tmp_path / "dino.pth", wrapped)
    convert(tmp_path / "dino.pth", tmp_path / "w.pdparams")
    backbone = {
        "name": "ViT_small_patch16_reid",
        "image_size": [HEIGHT, WIDTH],
        "conv_stem": True,
        "drop_path_rate": 0.3,
        "pretrained": str(tmp_path / "w.pdparams"),
    }
    engine = start(
        overrides(
            lite_set,
            tmp_path / "run",
            backbone,
            MOMENTUM,
            "Arch.Neck.num_features=384",
            Global__epochs=1,
        ),
        config=SYNTHETIC,
    )
    assert engine.head.progress == pytest.approx(1.0)
    assert np.isfinite(engine.last_result.mAP)
    assert "pos_embed resized from 8 positions to (2, 1)" in log_of(tmp_path / "run")
