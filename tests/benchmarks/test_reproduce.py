# SPDX-License-Identifier: Apache-2.0
"""The script behind the rows of the model zoo."""

import json
import re
import runpy
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY, options

SCRIPT = REPOSITORY / "benchmarks" / "reproduce.py"
reproduce = runpy.run_path(str(SCRIPT))
ROWS = reproduce["ROWS"]


def test_every_row_has_its_recipe_and_every_recipe_its_row():
    trained = {
        path.stem
        for path in (REPOSITORY / "configs").glob("*.yaml")
        if not path.stem.endswith(("_infer", "_synthetic")) and "folder" not in path.stem
    }
    assert {row.config for row in ROWS.values()} == trained


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.mean_ap])
def test_published_figures_are_those_of_the_model_zoo(name):
    zoo = (REPOSITORY / "docs" / "en" / "model_zoo.md").read_text(encoding="utf-8")
    row = ROWS[name]
    rank1 = "–" if row.rank1 is None else f"{row.rank1:.1f}"
    assert f"{row.mean_ap:.1f} / {rank1}" in zoo
    if not row.overrides:
        first = (REPOSITORY / "configs" / f"{row.config}.yaml").read_text().splitlines()[1]
        assert f"{row.mean_ap:.1f} mAP" in first


def test_logs_are_read_by_epoch():
    log = (
        "[Cluster][Epoch 1/2] 5 clusters, 10.5 % outliers, median 4\n"
        "[Eval][Epoch 1] mAP 0.500, mINP 0.1, Rank-1 0.600\n"
        "[Cluster][Epoch 2/2] 6 clusters, 9.0 % outliers, median 4\n"
        "[Cluster][Epoch 2/2] 7 clusters, 8.0 % outliers, median 4\n"
        "[Eval][Epoch 2] mAP 0.400, mINP 0.1, Rank-1 0.700\n"
    )
    figures = reproduce["figures_of"](log)
    assert figures["clusters"] == {1: [5, 10.5], 2: [7, 8.0]}
    assert figures["evaluations"] == {1: [0.5, 0.6], 2: [0.4, 0.7]}
    lines = reproduce["table"](ROWS["CameraContrast_market"], [figures, figures])
    assert lines[2].startswith("| published, CA-Jaccard") and "| 84.8 | – |" in lines[2]
    assert "50.0 ± 0.0 | 60.0 ± 0.0" in lines[3] and "40.0 ± 0.0 | 70.0 ± 0.0" in lines[4]


@pytest.mark.slow
def test_a_row_runs_and_is_continued(lite_set, tmp_path):
    small = {
        "Global.device": "cpu",
        "Global.epochs": 1,
        "Arch.Backbone": {"name": "PlainConvNet", "channels": [8]},
        "Arch.BackboneStopLayer": None,
        "Arch.Neck.num_features": 8,
        "Arch.Neck.pooling": "avg",
        "Clustering.warm_up_batches": 1,
        "Clustering.eps": 0.6,
        "DataLoader.Train.sampler.batch_size": 16,
        "DataLoader.Train.sampler.num_instances": 4,
        "DataLoader.Train.sampler.iters": 1,
        "DataLoader.Train.loader.num_workers": 0,
        "DataLoader.Eval.Query.loader.num_workers": 0,
        "DataLoader.Eval.Gallery.loader.num_workers": 0,
    }
    command = [sys.executable, str(SCRIPT), "ISE_market_camera", "--image-root", str(lite_set)]
    command += [
        "--out",
        str(tmp_path),
        *options([f"{key}={value}" for key, value in small.items()]),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\| measured, last epoch \(1 seeds\) \| \d+\.\d \| \d+\.\d \|", done.stdout)
    figures = json.loads((tmp_path / "ISE_market_camera" / "figures.json").read_text())
    assert list(figures["runs"][0]["clusters"]) == ["1"]
    assert figures["published"]["config"] == "ISE_market_camera"
