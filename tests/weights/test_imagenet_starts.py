# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights without a network connection: the ways of docs/en/weights.md, on made files."""

import re
import shlex

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.cli.main import main
from ppcls_ise.errors import WeightsError
from ppcls_ise.weights import released
from ppcls_ise.weights.conversion import write_torch
from ppcls_ise.weights.loading import read_state
from tests.conftest import REPOSITORY
from tests.engine.test_engine import FOLDER, crops, engine_of, log_of
from tests.weights.test_torch_layouts import imagenet_state

PAGE = REPOSITORY / "docs" / "en" / "weights.md"
SMALL = [
    "Global.device=cpu",
    "Global.image_shape=[3,64,32]",
    "DataLoader.Train.loader.num_workers=0",
    "Clustering.warm_up_batches=1",
    "DataLoader.Train.sampler.batch_size=16",
]


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def commands() -> list[list[str]]:
    """The lines ``ppcls-ise …`` of the page's part on ImageNet weights."""
    part = PAGE.read_text(encoding="utf-8").split("## ImageNet weights")[1].split("\n## ")[0]
    text = "".join(re.findall(r"```bash\n(.*?)```", part, flags=re.DOTALL))
    return [shlex.split(line)[1:] for line in text.replace("\\\n", " ").strip().splitlines()]


def starts() -> dict[str, list[str]]:
    """Weight file -> ``-o`` values of the page's command that begins with it."""
    found = {}
    for words in commands():
        if words[0] == "train":
            overrides = [words[i + 1] for i, word in enumerate(words) if word == "-o"]
            (file,) = (v.partition("=")[2] for v in overrides if v.startswith("Arch.Backbone.pre"))
            found[file] = [v for v in overrides if not v.startswith("Global.")]
    return found


def begin(file: str, tmp_path):
    """The engine as the page's command makes it, with small images."""
    crops(tmp_path / "crops", 8)
    return engine_of([*starts()[file], *SMALL, "Global.output_dir=run"], config=FOLDER)


def test_a_file_of_paddleclas(tmp_path, monkeypatch):
    """What PaddleClas publishes holds the whole network by its own names, classifier included."""
    monkeypatch.chdir(tmp_path)
    network = compat.lookup("backbone", "ResNet50_last_stage_stride1")(pretrained=False)
    file = "pretrained/ResNet50_pretrained.pdparams"
    (tmp_path / "pretrained").mkdir()
    paddle.save(network.state_dict(), file)
    engine = begin(file, tmp_path)
    assert engine.has_pretrained_weights
    own = engine.plain_model.backbone.state_dict()
    expected = network.state_dict()["blocks.3.conv1.conv.weight"].numpy()
    np.testing.assert_array_equal(own["blocks.3.conv1.conv.weight"].numpy(), expected)
    assert "tensors loaded" in log_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("network", "source", "tensor"),
    [
        ("resnet50", "resnet50-0676ba61.pth", "blocks.0.conv0.conv.weight"),
        ("resnet18", "resnet18-f37072fd.pth", "blocks.1.conv0.conv.weight"),
        ("mobilenet_v2", "mobilenet_v2-7ebf99e0.pth", "conv9._conv.weight"),
    ],
)
def test_files_of_torchvision(network, source, tensor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = imagenet_state(network)
    classifier = "classifier.1" if network == "mobilenet_v2" else "fc"
    features = state[f"{classifier}.weight"].shape[1]
    state[f"{classifier}.weight"] = np.zeros((1000, features), np.float32)
    state[f"{classifier}.bias"] = np.zeros(1000, np.float32)
    write_torch(source, state)
    (convert,) = (words for words in commands() if words[0] == "convert" and source in words)
    main(arguments=convert)
    engine = begin(convert[2], tmp_path)
    assert engine.has_pretrained_weights
    own = engine.plain_model.backbone.state_dict()[tensor].numpy()
    np.testing.assert_array_equal(own, read_state(convert[2])[tensor])
    assert any(np.array_equal(own, value) for value in state.values())
    engine.plain_model.eval()
    with paddle.no_grad():
        out = engine.plain_model(paddle.rand([2, 3, 64, 32]))["features"]
    assert out.shape == [2, {"resnet50": 2048, "resnet18": 512, "mobilenet_v2": 1000}[network]]


def test_a_failed_download_names_every_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(released, "_PAUSES", ())
    monkeypatch.setattr(compat.load("ppcls.utils.download"), "WEIGHTS_HOME", str(tmp_path))
    save_load = compat.load("ppcls.utils.save_load")
    with pytest.raises(WeightsError) as error:
        save_load.get_weights_path_from_url("http://127.0.0.1:9/ResNet50_pretrained.pdparams")
    for words in (
        f"copy it to {tmp_path / 'ResNet50_pretrained.pdparams'}",
        "-o Arch.Backbone.pretrained=FILE",
        "docs/en/weights.md",
        "ISE_folder_cpu",
    ):
        assert words in str(error.value)
