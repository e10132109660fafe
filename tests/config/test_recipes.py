# SPDX-License-Identifier: Apache-2.0
"""Recipes differ where their papers or data differ, and nowhere else; the tables are the files'."""

import functools
import itertools
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest
import yaml

import ppcls_ise
from ppcls_ise.config import get_config
from tests.conftest import REPOSITORY

PATHS = {path.stem: path for path in sorted((REPOSITORY / "configs").glob("*.yaml"))}
TRAINING = [name for name in PATHS if not name.endswith("_infer")]
OWN = ("Global.output_dir", "Global.save_inference_dir")

# What a small network on a CPU asks for.
SMALL = (
    "Arch.Backbone.* Arch.BackboneStopLayer.name Arch.Neck.num_features Arch.Neck.pooling "
    "Arch.bn_group_size Arch.Head.num_features Arch.Head.attention_dim Arch.Head.num_instances "
    "Clustering.eps Clustering.k1 *.ResizeImage.size Global.image_shape "
    "DataLoader.*.dataset.name DataLoader.*.num_workers DataLoader.Train.sampler.* "
    "*.RandomPadCrop.padding *.RandomErasing.sh Global.device Global.epochs "
    "Global.eval_interval Global.image_root Global.print_batch_step Global.save_interval "
    "Optimizer.lr.learning_rate Optimizer.lr.step_size"
)
# Tag: (source, keys). The keys may differ between two recipes of which one alone has the tag: a
# method, a data set, a variant, or a method on a data set. `*` stands for anything.
INTENDED = {
    "ClusterContrast": (
        "arXiv 2103.11568: GeM pooling, mean memory",
        "Arch.Head.name Arch.Head.memory Arch.BackboneStopLayer.name Arch.Neck.pooling "
        "Loss.Train.0.*",
    ),
    "ISE": (
        "ISE, CVPR 2022 (docs/en/ise.md): supports, LP loss, average pooling",
        "Arch.Head.name Arch.Head.topk Arch.Head.base_lambda Arch.Head.memory "
        "Loss.Train.1.LPLoss.* Clustering.eps",
    ),
    "ISE folder cpu": (
        "docs/en/own_data.md: the settings of the synthetic recipe, mean memory",
        "Arch.Head.memory Arch.Head.momentum",
    ),
    "ISE folder": (
        "the settings of ISE on Market-1501: hard memory, 400 steps",
        "Arch.Head.memory Arch.Head.momentum",
    ),
    "ISE market": (
        "ISE, CVPR 2022 (docs/en/ise.md): hard memory, 70 epochs of 400 steps",
        "Arch.Head.memory Arch.Head.momentum Clustering.eps DataLoader.Train.sampler.iters "
        "Global.epochs Global.eval_interval Loss.Train.1.LPLoss.weight Optimizer.lr.step_size",
    ),
    "ISE msmt17": (
        "ISE, CVPR 2022 (docs/en/ise.md): mean memory, larger eps, smaller LP weight",
        "Arch.Head.memory Clustering.eps Global.eval_interval Loss.Train.1.LPLoss.weight",
    ),
    "gem": (
        "ISE, CVPR 2022: its row with GeM pooling",
        "Arch.BackboneStopLayer.name Arch.Neck.pooling",
    ),
    "camera": (
        "CA-Jaccard, arXiv 2311.10605: camera-aware distance and its list lengths",
        "Clustering.camera_aware Clustering.k*",
    ),
    "ClusterContrast camera": (
        "CA-Jaccard, released code: average pooling; it evaluates often",
        "Arch.BackboneStopLayer.name Arch.Neck.pooling Global.eval_interval",
    ),
    "ClusterContrast market camera": ("CA-Jaccard, arXiv 2311.10605", "Clustering.eps"),
    "ISE msmt17 camera": ("CA-Jaccard, arXiv 2311.10605", "Clustering.eps"),
    "ibn": ("IBN-a weights are a file", "Arch.Backbone.name Arch.Backbone.pretrained"),
    "vit": (
        "TransReID-SSL, arXiv 2111.12084: ViT-S/16, its normalization, SGD, 8 instances",
        "Arch.Backbone.* Arch.BackboneStopLayer.name Arch.Neck.num_features "
        "*.NormalizeImage.mean *.NormalizeImage.std Optimizer.name Optimizer.momentum "
        "DataLoader.Train.sampler.num_instances",
    ),
    "ClusterContrast vit": (
        "TransReID-SSL, arXiv 2111.12084: hard memory, no pooling",
        "Arch.Head.memory Arch.Head.momentum Arch.Neck.pooling",
    ),
    "ClusterContrast msmt17 vit": (
        "TransReID-SSL, arXiv 2111.12084",
        "Arch.bn_group_size Clustering.eps DataLoader.Train.sampler.iters Global.eval_interval",
    ),
    "ISE vit": (
        "the schedule and eps of TransReID-SSL, arXiv 2111.12084",
        "Clustering.eps DataLoader.Train.sampler.iters Global.epochs Optimizer.lr.step_size",
    ),
    "personx": ("the data set", "DataLoader.*.dataset.name"),
    "CSA personx": ("eps for the data set", "Clustering.eps"),
    "veri776": (
        "the data set: vehicles in squares",
        "DataLoader.*.dataset.name *.ResizeImage.size Global.image_shape",
    ),
    "ISE veri776": (
        "eps for the data set; memory and schedule as on MSMT17",
        "Arch.Head.memory Arch.Head.momentum Clustering.eps Global.epochs Global.eval_interval "
        "Optimizer.lr.step_size DataLoader.Train.sampler.iters",
    ),
    "HHCL": (
        "arXiv 2109.12333 and released command: hybrid memories, average pooling, 60 epochs",
        "Arch.Head.name Arch.Head.memory Arch.Head.version Arch.Head.num_instances Loss.Train.0.* "
        "Arch.BackboneStopLayer.name Arch.Neck.pooling Clustering.eps Global.epochs",
    ),
    "HHCL market": ("arXiv 2109.12333, released command", "Clustering.eps"),
    "CSA": (
        "docs/en/csa.md: self-attention and hardest positives on Cluster Contrast's settings",
        "Arch.Head.name Arch.Head.memory Arch.Head.initialization Arch.Head.num_features "
        "Arch.Head.num_heads Arch.Head.attention_dim Arch.Head.max_samples "
        "Loss.Train.1.AggregationLoss.* Arch.BackboneStopLayer.name Arch.Neck.pooling",
    ),
    "market": ("the data set", "DataLoader.*.dataset.name DataLoader.Train.sampler.iters"),
    "msmt17": (
        "the data set; twice the steps of Market-1501 (arXiv 2103.11568)",
        "DataLoader.*.dataset.name DataLoader.Train.sampler.iters",
    ),
    "folder": (
        "docs/en/own_data.md: nothing to evaluate, cameras and tracklets as one likes, eps between "
        "the two",
        "DataLoader.Train.dataset.name DataLoader.Train.dataset.camera_* "
        "DataLoader.Train.dataset.tracklet_* DataLoader.Train.dataset.table "
        "DataLoader.Train.dataset.frame_step DataLoader.Train.dataset.max_per_tracklet "
        "DataLoader.Train.sampler.tracklet_aware Clustering.tracklet_* Clustering.must_link "
        "Clustering.whiten "
        "DataLoader.Train.dataset.cls_label_path DataLoader.Eval.* Metric.* Global.image_root "
        "Global.eval_during_train Global.eval_interval Global.epochs Clustering.eps "
        "Optimizer.lr.step_size DataLoader.Train.sampler.iters",
    ),
    "synthetic": (
        "docs/en/model_zoo.md: small images and a small network, from scratch on a CPU",
        SMALL,
    ),
    "cpu": (
        "docs/en/own_data.md: the settings of the synthetic recipe, from scratch on a CPU",
        SMALL,
    ),
}


# Recipes that carry their variant in the name of the method.
VARIANTS = {"CameraContrast": ("ClusterContrast", "camera"), "ViT": ("ClusterContrast", "vit")}


def tags(name: str) -> set[str]:
    method, data, *variants = name.split("_")
    method, *more = VARIANTS.get(method, (method,))
    variants += more
    found = {method, data, f"{method} {data}", *variants}
    for variant in variants:
        found |= {f"{method} {variant}", f"{method} {data} {variant}"}
    return found


def flat(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(key.key.index, value), down to lists of numbers."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flat(item, (*place, str(key)))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from flat(item, (*place, str(index)))
    else:
        yield ".".join(place), value


@functools.cache
def settings(name: str) -> dict[str, Any]:
    return dict(flat(yaml.safe_load(PATHS[name].read_text(encoding="utf-8"))))


def differences(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    missing = object()
    return {k for k in one.keys() | other.keys() if one.get(k, missing) != other.get(k, missing)}


def unintended(first: str, second: str, one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    patterns = list(OWN)
    for tag in tags(first) ^ tags(second):
        patterns += INTENDED.get(tag, ("", ""))[1].split()
    return {
        key
        for key in differences(one, other)
        if not any(fnmatchcase(key, pattern) for pattern in patterns)
    }


def test_recipes_differ_where_they_say_so():
    read = {name: settings(name) for name in TRAINING}
    found = {
        f"{a} and {b}": keys
        for a, b in itertools.combinations(TRAINING, 2)
        if (keys := unintended(a, b, read[a], read[b]))
    }
    assert found == {}
    for name in TRAINING:
        assert [read[name][key] for key in OWN] == [f"./output/{name}", f"./inference/{name}"]


def test_every_intended_difference_is_one():
    """An entry of the table that no pair of recipes needs would hide a mistake to come."""
    read = {name: settings(name) for name in TRAINING}
    used = set()
    for a, b in itertools.combinations(TRAINING, 2):
        keys = differences(read[a], read[b])
        for tag in tags(a) ^ tags(b):
            for pattern in INTENDED.get(tag, ("", ""))[1].split():
                if any(fnmatchcase(key, pattern) for key in keys):
                    used.add((tag, pattern))
    assert used == {(tag, p) for tag, (_, patterns) in INTENDED.items() for p in patterns.split()}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("ISE_market", "Optimizer.regularizer.coeff", 5e-5),
        ("HHCL_msmt17", "Clustering.k2", 3),
        ("CSA_market", "Arch.Head.temperature", 0.07),
        ("ISE_market_gem", "Loss.Train.1.LPLoss.weight", 0.2),
        ("ClusterContrast_synthetic", "DataLoader.Eval.Query.sampler.batch_size", 32),
        ("ISE_folder", "Clustering.min_samples", None),
    ],
)
def test_the_comparison_finds(name, key, value):
    read = {each: settings(each) for each in TRAINING}
    read[name] = read[name] | {key: value}
    assert any(
        key in unintended(name, other, read[name], read[other])
        for other in TRAINING
        if other != name
    )


# -- what the documents say of the files ------------------------------------------------------

PAIR = re.compile(r"(\d+\.\d) / (\d+\.\d)")


def published(name: str) -> tuple[str, str] | None:
    """mAP and Rank-1 in the comment on top of a config."""
    head = PATHS[name].read_text(encoding="utf-8").split("\nGlobal:")[0]
    match = re.search(r"(\d+\.\d) mAP / (\d+\.\d) Rank-1", head)
    return match.groups() if match else None


def rows(document: str, title: str) -> list[list[str]]:
    text = (REPOSITORY / document).read_text(encoding="utf-8").split(title)[1]
    table = text[text.index("\n|") :].split("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def names_in(cell: str) -> list[str]:
    """`A_market`, `_msmt17` and `*_synthetic`, written out."""
    found: list[str] = []
    for word in re.findall(r"`([\w*]+)`", cell):
        if word.startswith("*"):
            found += [name for name in PATHS if name.endswith(word[1:])]
        else:
            found.append(found[0].split("_")[0] + word if word.startswith("_") else word)
    return found


def test_the_configs_of_the_readme():
    listed = []
    for configs, _, figures in rows("README.md", "## Configs"):
        names = names_in(configs)
        listed += names
        if found := PAIR.findall(figures):
            assert found == [published(name) for name in names], configs
        elif not configs.startswith("`*"):
            assert not any(published(name) for name in names), configs
    assert sorted(listed) == sorted(PATHS)


def test_the_rows_of_the_model_zoo():
    listed = set()
    for row, cell, market, msmt17, _ in rows("docs/en/model_zoo.md", "# Model zoo"):
        names = names_in(cell) if "-o" not in cell and "with" not in cell else []
        assert set(names) <= set(PATHS), row
        listed |= set(names)
        for name in names:
            if name.endswith("_synthetic"):
                continue
            figures = market if "_market" in name else msmt17
            assert PAIR.findall(figures) == ([published(name)] if published(name) else []), row
    text = (REPOSITORY / "docs/en/model_zoo.md").read_text(encoding="utf-8")
    listed |= set(re.findall(r"`(\w+)`", text))  # below the table
    assert listed >= {name for name in TRAINING if "_folder" not in name}


def variants() -> list[Any]:
    """The rows that are a config with overrides, for each config that they are of."""
    found = []
    for row, cell, *_ in rows("docs/en/model_zoo.md", "# Model zoo"):
        if match := re.fullmatch(r"(.+) configs with `(.+)`", cell):
            method = match[1].replace(" ", "")
            options = shlex.split(match[2])
            assert options[::2] == ["-o"] * (len(options) // 2), cell
            found += [
                pytest.param(name, options[1::2], id=f"{row}-{name}")
                for name in TRAINING
                if name.split("_")[0] == method and "_folder" not in name
            ]
    return found


@pytest.mark.parametrize(("name", "overrides"), variants())
def test_the_variants_of_the_model_zoo(name, overrides):
    ppcls_ise.register()
    base = dict(flat(get_config(name, ["Global.device=cpu"])))
    changed = dict(flat(get_config(name, ["Global.device=cpu", *overrides])))
    assert differences(base, changed), "the overrides change nothing"


def test_there_are_variants():
    assert len(variants()) >= 20
