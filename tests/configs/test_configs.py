# SPDX-License-Identifier: Apache-2.0
"""Every training config starts, trains two steps and evaluates, on a small network."""

import numpy as np
import pytest
import yaml

import ppcls_ise
from tests.conftest import REPOSITORY
from tests.engine.test_engine import log_of, train

TRAINING = sorted(
    path
    for path in (REPOSITORY / "configs").glob("*.yaml")
    if "Train" in yaml.safe_load(path.read_text())["DataLoader"]
)


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def small(config: dict, root, output) -> list[str]:
    """Overrides that keep the method and make everything else small."""
    overrides = {
        "Global.device": "cpu",
        "Global.image_root": root,
        "Global.output_dir": output,
        "Global.epochs": 1,
        "Global.eval_interval": 1,
        "Arch.Backbone": {"name": "PlainConvNet", "channels": [8, 16]},
        "Arch.BackboneStopLayer": None,
        "Arch.bn_group_size": 8,
        "Arch.Neck.num_features": 16,
        "Arch.Neck.pooling": "gem",
        "Clustering.warm_up_batches": 2,
        "Clustering.k1": 10,
        "Clustering.eps": 0.6,
        "Clustering.transform_ops.0.ResizeImage.size": [24, 48],
        "DataLoader.Train.sampler.batch_size": 16,
        "DataLoader.Train.sampler.num_instances": 4,
        "DataLoader.Train.sampler.iters": 2,
    }
    if "num_features" in config["Arch"]["Head"]:
        overrides["Arch.Head.num_features"] = 16
    loaders = {"DataLoader.Train": config["DataLoader"]["Train"]}
    for name, part in config["DataLoader"].get("Eval", {}).items():
        loaders[f"DataLoader.Eval.{name}"] = part
    for path, part in loaders.items():
        overrides |= {
            f"{path}.loader.num_workers": 0,
            f"{path}.dataset.transform_ops.0.ResizeImage.size": [24, 48],
        }
        if part["dataset"]["name"] != "UnlabeledFolder":
            overrides[f"{path}.dataset.name"] = "MarketStyleDataset"
    return [f"{key}={value}" for key, value in overrides.items()]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_config_trains_and_evaluates(path, lite_set, tmp_path):
    config = yaml.safe_load(path.read_text())
    labeled = config["Global"]["eval_during_train"]
    root = lite_set if labeled else lite_set / "bounding_box_train"
    engine = train(small(config, root, tmp_path), config=path)
    assert engine.head.progress == pytest.approx(1.0)
    assert "[Epoch 1/1]" in log_of(tmp_path)
    losses = [next(iter(entry)) for entry in config["Loss"]["Train"]]
    assert all(name in log_of(tmp_path) for name in losses)
    if labeled:
        assert np.isfinite(engine.last_result.mAP)
