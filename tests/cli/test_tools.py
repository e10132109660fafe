# SPDX-License-Identifier: Apache-2.0
"""The tools as a user calls them."""

import re
import subprocess
import sys

import pytest

from tests.conftest import (
    REPOSITORY,
    SYNTHETIC,
    lite_overrides,
    options,
    run_tool,
)

pytestmark = pytest.mark.slow
MINI_MARKET = REPOSITORY.parent / "shared" / "data" / "mini_market1501"
MARKET = REPOSITORY / "configs" / "ISE_market.yaml"


def figures(text: str) -> tuple[str, ...]:
    """mAP, mINP, Rank-1, Rank-5, Rank-10 of the table, or of the log line, that comes last."""
    number = r"([0-9.]+|nan)"
    logged = re.findall(
        rf"mAP {number}, mINP {number}, Rank-1 {number}, Rank-5 {number}, Rank-10 {number}", text
    )
    return logged[-1]


def test_train_then_evaluate(lite_set, tmp_path):
    overrides = lite_overrides(lite_set, tmp_path)
    trained = run_tool("train", "-c", str(SYNTHETIC), *options(overrides))
    assert trained.returncode == 0, trained.stdout
    weights = tmp_path / "RecModel" / "latest"
    overrides.append(f"Global.pretrained_model={weights}")
    evaluated = run_tool("eval", "-c", str(SYNTHETIC), *options(overrides))
    assert evaluated.returncode == 0, evaluated.stdout
    assert figures(evaluated.stdout) == figures(trained.stdout)
    header, line, row = evaluated.stdout.rstrip().splitlines()[-3:]
    names = [cell.strip() for cell in header.split("|")]
    assert names == "mAP mINP Rank-1 Rank-5 Rank-10 queries gallery skipped".split()
    assert tuple(cell.strip() for cell in row.split("|"))[:5] == figures(evaluated.stdout)
    assert set(line) == set("-+")


@pytest.mark.long
@pytest.mark.skipif(not MINI_MARKET.is_dir(), reason="the real sample images are not here")
def test_real_images_with_the_published_recipe_on_another_backbone(tmp_path):
    overrides = [
        f"Global.image_root={MINI_MARKET}",
        f"Global.output_dir={tmp_path}",
        "Global.device=cpu",
        "Global.epochs=2",
        "Arch.Backbone={'name': 'ResNet18', 'pretrained': False}",
        "Arch.Neck.num_features=512",
        "Arch.bn_group_size=8",
        "Clustering.warm_up_batches=2",
        "Clustering.k1=8",
        "Clustering.eps=0.7",
        "DataLoader.Train.sampler.batch_size=8",
        "DataLoader.Train.sampler.num_instances=4",
        "DataLoader.Train.sampler.iters=2",
    ]
    for path in ("Train", "Eval.Query", "Eval.Gallery"):
        overrides.append(f"DataLoader.{path}.loader.num_workers=0")
    done = run_tool("train", "-c", str(MARKET), *options(overrides))
    assert done.returncode == 0, done.stdout
    assert "the published data set 12936" in done.stdout
    assert "[Epoch 2/2]" in done.stdout
    overrides.append(f"Global.pretrained_model={tmp_path}/RecModel/best_model")
    assert run_tool("eval", "-c", str(MARKET), *options(overrides)).returncode == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("Global.epoch=3", "nothing reads the key Global.epoch. Did you mean Global.epochs?"),
        ("Global.image_root=nowhere", "Global.image_root"),
        ("Global.pretrained_model=nowhere/latest", "there is no weight file nowhere/latest"),
    ],
)
def test_mistakes_end_with_one_sentence(lite_set, tmp_path, override, words):
    overrides = [*lite_overrides(lite_set, tmp_path), override]
    done = run_tool("eval", "-c", str(SYNTHETIC), *options(overrides))
    assert done.returncode == 1
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith("error: ") and words in last
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_vanishes_during_an_epoch_ends_the_run(lite_set, tmp_path, workers):
    """Clustering has read it, training cannot: no hang, no other image in its place."""
    script = f"""
import shutil, sys
sys.path.insert(0, {str(REPOSITORY)!r})
import ppcls_ise
from ppcls_ise.cli.process import run
def main():
    ppcls_ise.register()
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine
    from ppcls_ise.engine import ClusteringCallback
    cluster = ClusteringCallback.cluster
    def cluster_then_lose(self, engine, epoch):
        cluster(self, engine, epoch)
        shutil.rmtree({str(tmp_path / "set" / "bounding_box_train")!r})
    ClusteringCallback.cluster = cluster_then_lose
    UnsupervisedEngine(get_config({str(SYNTHETIC)!r}, sys.argv[1:])).train()
run(main)
"""
    import shutil

    shutil.copytree(lite_set, tmp_path / "set")
    overrides = lite_overrides(
        tmp_path / "set", tmp_path / "run", DataLoader__Train__loader__num_workers=workers
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert re.search(r"\d{4}_c\d.*\.jpg", done.stdout.split("Epoch 1/2")[-1])


@pytest.mark.long
def test_demo(tmp_path):
    root = tmp_path / "images"
    overrides = lite_overrides(root, tmp_path / "run", Global__epochs=1)
    done = run_tool("demo", *options(overrides))
    assert done.returncode == 0, done.stdout
    for word in ("before training", "after training", "untrained network", "ranked_lists.png"):
        assert word in done.stdout
    assert (tmp_path / "run" / "RecModel" / "ranked_lists.png").stat().st_size > 10_000
    report = tmp_path / "run" / "RecModel" / "report.html"
    assert str(report) in done.stdout.splitlines()[-3] and report.stat().st_size > 100_000
    assert len(list((root / "bounding_box_train").iterdir())) > 1000
