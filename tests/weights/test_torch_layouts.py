# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of other networks than ISE's ResNet-50: which they are, and what they become."""

from functools import lru_cache

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.backbones import ReIDViT
from ppcls_ise.errors import WeightsError
from ppcls_ise.weights.conversion import convert, from_torch, read_torch, to_torch, write_torch
from ppcls_ise.weights.loading import load_into, read_state
from ppcls_ise.weights.torch_layouts import layout_of_torch
from tests.conftest import run_tool
from tests.weights.test_conversion import same_bits

TINY = {"embed_dim": 12, "depth": 2, "num_heads": 3, "image_size": (32, 16)}


def vit_state(*, conv_stem=False, neck=False) -> dict[str, np.ndarray]:
    """Of a tiny ViT, by PyTorch's names."""
    network = ReIDViT(**TINY, conv_stem=conv_stem)
    ours = {name: value.numpy() for name, value in network.state_dict().items()}
    if neck:
        ours = {f"backbone.{name}": value for name, value in ours.items()}
        for part in ("weight", "bias", "_mean", "_variance"):
            ours[f"neck.feat_bn.{part}"] = np.ones(12, np.float32)
    theirs, _ = to_torch(ours, source="x")
    return theirs


def imagenet_state(network: str, **options) -> dict[str, np.ndarray]:
    """Random values of a converted network's names and shapes, by PyTorch's names."""
    generator = np.random.default_rng(0)
    names = {
        "resnet18": {"conv1.weight": (1,)} | _blocks((2, 2, 2, 2)),
        "resnet50": {"conv1.weight": (1,)} | _blocks((3, 4, 6, 3), conv3=True),
        "resnet50_ibn_a": {"conv1.weight": (1,), "layer1.0.bn1.IN.weight": (1,)}
        | _blocks((3, 4, 6, 3), conv3=True),
        "mobilenet_v2": {"features.0.0.weight": (1,)},
    }[network]
    classifier = "classifier.1" if network == "mobilenet_v2" else "fc"
    features = {"resnet18": 512, "mobilenet_v2": 1280}.get(network, 2048)
    names[f"{classifier}.weight"] = (10, features)
    state = {}
    for tensor in layout_of_torch(names).tensors:
        value = generator.standard_normal(tensor.shape, dtype=np.float32)
        if tensor.torch_name.endswith("running_var"):
            value = np.abs(value) + 0.5
            counter = tensor.torch_name.replace("running_var", "num_batches_tracked")
            state[counter] = np.zeros((), np.int64)
        elif len(tensor.shape) == 4:
            value *= np.sqrt(2.0 / np.prod(tensor.shape[1:]))
        state[tensor.torch_name] = value
    return state


def _blocks(counts, *, conv3=False) -> dict:
    last = "conv3" if conv3 else "conv2"
    return {
        f"layer{stage}.{i}.{last}.weight": (1,)
        for stage, count in enumerate(counts, start=1)
        for i in range(count)
    }


@lru_cache  # PaddleClas's MobileNetV2 can be built once in a process
def imagenet_backbone(name: str) -> paddle.nn.Layer:
    ppcls_ise.register()
    return compat.lookup("backbone", name)(pretrained=False, class_num=10)


def dino_checkpoint(state, *, parallel="") -> dict[str, np.ndarray]:
    """The teacher's names: the network in a wrapper, and the projection head."""
    wrapped = {f"{parallel}backbone.{name}": value for name, value in state.items()}
    return wrapped | {f"{parallel}head.mlp.0.weight": np.zeros((3, 12), np.float32)}


# -- ViT --------------------------------------------------------------------------------------


@pytest.mark.parametrize("conv_stem", [False, True])
@pytest.mark.parametrize("parallel", ["", "module."])
def test_a_dino_teacher_becomes_a_backbone(conv_stem, parallel, tmp_path):
    theirs = vit_state(conv_stem=conv_stem)
    ours, report = from_torch(dino_checkpoint(theirs, parallel=parallel), source="dino")
    assert report.ignored == ["head.mlp.0.weight"]
    assert "Arch.Backbone.pretrained" in str(report) and f"conv_stem {conv_stem}" in str(report)
    network = ReIDViT(**TINY, conv_stem=conv_stem)
    assert str(load_into(network, ours, source="x")) == f"{len(ours)} tensors loaded"
    np.testing.assert_array_equal(
        network.blocks[0].mlp.fc1.weight.numpy(), theirs["blocks.0.mlp.fc1.weight"].T
    )
    assert same_bits(to_torch(ours, source="y")[0], theirs)
    again, _ = from_torch(theirs, source="the plain file that their script makes of it")
    assert same_bits(again, ours)


def test_a_result_of_unsupervised_training_becomes_a_whole_model():
    theirs = {f"module.{name}": value for name, value in vit_state(neck=True).items()}
    ours, report = from_torch(theirs, source="usl")
    assert "Global.pretrained_model" in str(report)
    assert all(name.startswith(("backbone.", "neck.feat_bn.")) for name in ours)
    assert same_bits(to_torch(ours, source="y", data_parallel=True)[0], theirs)
    with_loss = ours | {"loss_func.0.centers": np.zeros(3), "head.memory": np.zeros(3)}
    assert to_torch(with_loss, source="y")[1].ignored == ["loss_func.0.centers", "head.memory"]


def test_a_supervised_result_loses_its_classifier():
    theirs = {f"base.{name}": value for name, value in vit_state().items()}
    heads = {"base.fc.weight": (7, 12), "base.fc.bias": (7,), "classifier.weight": (5, 12)}
    theirs |= {name: np.zeros(shape, np.float32) for name, shape in heads.items()}
    ours, report = from_torch(theirs, source="x")
    assert report.ignored == ["fc.weight", "fc.bias", "classifier.weight"]
    assert "cls_token" in ours


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s: s | {"blocks.7.norm1.weight": np.zeros(12)}, "missing (blocks.2"),
        (lambda s: s | {"blocks.99999999999.norm1.weight": np.zeros(12)}, "missing (blocks.2"),
        (lambda s: s | {"cls_token": np.zeros((1, 1, 13))}, "mismatched"),
        (lambda s: s | {"cls_token": np.zeros(())}, "mismatched"),
        (lambda s: s | {"pos_embed": np.zeros(12)}, "mismatched"),
        (lambda s: s | {"blocks.x.norm1.weight": np.zeros(12)}, "unexpected (blocks.x"),
        (lambda s: s | {"dist_token": np.zeros(12)}, "unexpected (dist_token"),
    ],
)
def test_another_transformer_is_an_error(change, word):
    with pytest.raises(WeightsError, match=r"x is not the ViT") as error:
        from_torch(change(vit_state()), source="x")
    assert word in str(error.value)


# -- ImageNet ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("resnet18", "ResNet18"),
        ("resnet50_ibn_a", "ResNet50_IBN_a"),
        ("mobilenet_v2", "MobileNetV2"),
    ],
)
def test_imagenet_weights_fill_a_backbone(network, name, tmp_path):
    theirs = imagenet_state(network)
    ours, report = from_torch(theirs, source=network)
    assert name in str(report)
    backbone = imagenet_backbone(name)
    report = load_into(backbone, ours, source=network)
    assert str(report) == f"{len(backbone.state_dict())} tensors loaded"
    classifier = "out" if network == "mobilenet_v2" else "fc"
    del ours[f"{classifier}.weight"], ours[f"{classifier}.bias"]
    report = load_into(backbone, ours, source=network)
    assert "2 missing" in str(report)


def test_imagenet_weights_there_and_back(tmp_path):
    theirs, path = imagenet_state("resnet50"), tmp_path / "a.pth"
    write_torch(path, theirs)
    report = convert(path, tmp_path / "w.pdparams")
    assert "Arch.Backbone.name ResNet50_last_stage_stride1" in str(report)
    convert(tmp_path / "w.pdparams", tmp_path / "back.pth")
    back = read_torch(tmp_path / "back.pth")
    assert set(back) == set(theirs)
    assert all(back[name].tobytes() == value.tobytes() for name, value in theirs.items())


def reference(network: str, x: np.ndarray, state: dict[str, np.ndarray], *, training: bool):
    """The part of a network in which PaddleClas has a layer more, as torchvision computes it."""
    F = paddle.nn.functional  # noqa: N806
    value = {name: paddle.to_tensor(array) for name, array in state.items()}

    def norm(x, name):
        statistics = [value[f"{name}.{part}"] for part in ("running_mean", "running_var")]
        affine = [value[f"{name}.{part}"] for part in ("weight", "bias")]
        return F.batch_norm(x, *statistics, *affine, training=training)

    x = paddle.to_tensor(x)
    if network == "mobilenet_v2":
        x = F.relu6(
            norm(F.conv2d(x, value["features.0.0.weight"], stride=2, padding=1), "features.0.1")
        )
        conv = "features.1.conv"
        x = F.conv2d(x, value[f"{conv}.0.0.weight"], padding=1, groups=32)
        x = F.relu6(norm(x, f"{conv}.0.1"))
        return norm(F.conv2d(x, value[f"{conv}.1.weight"]), f"{conv}.2")
    x = F.relu(norm(F.conv2d(x, value["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    y = F.relu(norm(F.conv2d(x, value["layer1.0.conv1.weight"], padding=1), "layer1.0.bn1"))
    return F.relu(norm(F.conv2d(y, value["layer1.0.conv2.weight"], padding=1), "layer1.0.bn2") + x)


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
def test_the_layer_that_only_paddleclas_has_changes_nothing(network):
    theirs = imagenet_state(network)
    ours, report = from_torch(theirs, source="x")
    assert len(report.added) == 5 and "which only PaddleClas's network has" in str(report)
    name = "ResNet18" if network == "resnet18" else "MobileNetV2"
    backbone = imagenet_backbone(name)
    load_into(backbone, ours, source="x")
    layer = backbone.conv2 if network == "mobilenet_v2" else backbone.blocks[0]
    seen = []
    hook = layer.register_forward_post_hook(lambda _layer, _in, output: seen.append(output))
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    backbone.eval()
    backbone(paddle.to_tensor(images))
    hook.remove()
    expected = reference(network, images, theirs, training=False).numpy()
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=2e-5 * np.abs(expected).max())
    with pytest.raises(WeightsError, match="no way back"):
        to_torch(ours, source="y")


@pytest.mark.slow
def test_the_tool_prints_every_name(tmp_path):
    write_torch(tmp_path / "dino.pth", dino_checkpoint(vit_state()))
    target = tmp_path / "w.pdparams"
    result = run_tool("convert_weights", str(tmp_path / "dino.pth"), str(target), "--names")
    assert result.returncode == 0, result.stdout
    for line in ("blocks.1.attn.qkv.weight -> blocks.1.attn.qkv.weight", "head.mlp.0.weight left"):
        assert line in result.stdout
    assert "the ViT-…/16 of DINO" in result.stdout
    assert read_state(target)["pos_embed"].shape == (1, 3, 12)
