# SPDX-License-Identifier: Apache-2.0
"""The recipes for other networks and data sets differ from those that they are made of only in
what is published for them."""

import itertools
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY

MISSING = object()
FOLDERS = {"Global.output_dir", "Global.save_inference_dir"}
CAMERA = {
    "Clustering.camera_aware": True,
    "Clustering.k1_intra": 5,
    "Clustering.k1_inter": 20,
    "Clustering.k2_intra": 2,
    "Clustering.k2_inter": 4,
    "Clustering.k2_first_epoch": 3,
    "Clustering.k1": MISSING,
    "Clustering.k2": MISSING,
}
# The code of CA-Jaccard pools by the average, and evaluates more often.
CAMERA_CONTRAST = CAMERA | {
    "Arch.BackboneStopLayer.name": "avg_pool",
    "Arch.Neck.pooling": "none",
    "Global.eval_interval": 2,
}
NORMALIZED = {
    f"{place}.NormalizeImage.{key}.{i}": 0.5
    for place in (
        "Clustering.transform_ops.1",
        "DataLoader.Train.dataset.transform_ops.3",
        "DataLoader.Eval.Query.dataset.transform_ops.1",
        "DataLoader.Eval.Gallery.dataset.transform_ops.1",
    )
    for key, i in itertools.product(("mean", "std"), range(3))
}
VIT = {
    **NORMALIZED,
    "Arch.Backbone.name": "ViT_small_patch16_reid",
    "Arch.Backbone.image_size.0": 256,
    "Arch.Backbone.image_size.1": 128,
    "Arch.Backbone.conv_stem": True,
    "Arch.Backbone.drop_path_rate": 0.3,
    "Arch.Backbone.pretrained": "./pretrained/vit_small_ics_cfs_lup.pdparams",
    "Arch.BackboneStopLayer.name": MISSING,
    "Arch.Neck.num_features": 384,
    "Optimizer.name": "Momentum",
    "Optimizer.momentum": 0.9,
    "DataLoader.Train.sampler.num_instances": 8,
    "DataLoader.Train.sampler.iters": 200,
}
VIT_CONTRAST = {
    **VIT,
    "Arch.Neck.pooling": "none",
    "Arch.Head.memory": "hard",
    "Arch.Head.momentum": 0.2,
}
SHORTER = {"Global.epochs": 50, "Optimizer.lr.step_size": 20}
SIZES = {
    f"{place}.0.ResizeImage.size.{i}": 224
    for place in (
        "Clustering.transform_ops",
        "DataLoader.Train.dataset.transform_ops",
        "DataLoader.Eval.Query.dataset.transform_ops",
        "DataLoader.Eval.Gallery.dataset.transform_ops",
    )
    for i in range(2)
}


def dataset(name: str) -> dict[str, str]:
    return {
        f"DataLoader.{place}.dataset.name": name
        for place in ("Train", "Eval.Query", "Eval.Gallery")
    }


# Recipe -> what it is made of, and every setting in which it is another.
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "CameraContrast_market": ("ClusterContrast_market", CAMERA_CONTRAST | {"Clustering.eps": 0.4}),
    "CameraContrast_msmt17": ("ClusterContrast_msmt17", CAMERA_CONTRAST),
    "ISE_market_camera": ("ISE_market", CAMERA),
    "ISE_msmt17_camera": ("ISE_msmt17", CAMERA | {"Clustering.eps": 0.6}),
    "ISE_market_ibn": (
        "ISE_market",
        {
            "Arch.Backbone.name": "ResNet50_IBN_a",
            "Arch.Backbone.pretrained": "./pretrained/resnet50_ibn_a.pdparams",
        },
    ),
    "ViT_market": ("ClusterContrast_market", VIT_CONTRAST),
    "ViT_msmt17": (
        "ClusterContrast_msmt17",
        VIT_CONTRAST
        | {"Clustering.eps": 0.7, "Arch.bn_group_size": 128, "Global.eval_interval": 50},
    ),
    "ISE_market_vit": ("ISE_market", VIT | SHORTER | {"Clustering.eps": 0.6}),
    "CSA_personx": ("CSA_market", dataset("UnsupervisedPersonX") | {"Clustering.eps": 0.7}),
    "ISE_veri776_camera": (
        "ISE_market",
        CAMERA
        | SHORTER
        | SIZES
        | dataset("UnsupervisedVeRi776")
        | {
            "Clustering.eps": 0.6,
            "Global.image_shape.1": 224,
            "Global.image_shape.2": 224,
            "Arch.Head.memory": "mean",
            "Arch.Head.momentum": 0.1,
        },
    ),
}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    items = enumerate(value) if isinstance(value, list) else value.items()
    result: dict[str, Any] = {}
    for key, item in items:
        place = f"{path}.{key}" if path else str(key)
        result |= flat(item, place) if isinstance(item, dict | list) else {place: item}
    return result


def settings(name: str) -> dict[str, Any]:
    return flat(yaml.safe_load((REPOSITORY / "configs" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_differs_in_what_is_published_and_nowhere_else(name):
    base, expected = RECIPES[name]
    own, theirs = settings(name), settings(base)
    changed = {
        key: own.get(key, MISSING)
        for key in own.keys() | theirs.keys()
        if own.get(key, MISSING) != theirs.get(key, MISSING) and key not in FOLDERS
    }
    same = {key for key, value in expected.items() if theirs.get(key, MISSING) == value}
    assert changed == {key: value for key, value in expected.items() if key not in same}
    assert all(own[key].endswith(f"/{name}") for key in FOLDERS)
