# SPDX-License-Identifier: Apache-2.0
"""The guide from a tracker's folder to a search page, as it stands, on few and small images."""

import re
import shlex

import numpy as np
import pytest

import ppcls_ise
from ppcls_ise.cli.main import main
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "en" / "own_data.md"
# What makes the page's commands short; everything else is as written.
SHORTER = {
    "synthetic": "--num-train-ids 12 --num-test-ids 4 --num-cameras 3 --mean-length 5 --height 48 "
    "--width 24",
    "train": "-o Global.epochs=2 -o Clustering.warm_up_batches=4 "
    "-o DataLoader.Train.sampler.iters=5 -o DataLoader.Train.sampler.batch_size=16",
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").strip().splitlines()
    return [shlex.split(line) for line in lines]


@pytest.mark.long
def test_the_guide_runs_as_written(tmp_path, monkeypatch, capsys):
    ppcls_ise.register()
    monkeypatch.chdir(tmp_path)
    done = []
    for program, command, *arguments in commands():
        assert program == "ppcls-ise"
        main(arguments=[command, *arguments, *shlex.split(SHORTER.get(command, ""))])
        done.append(command)
    assert set(done) >= {"synthetic", "train", "report", "suggest-eps", "export", "search", "eval"}
    output = capsys.readouterr().out
    run = tmp_path / "output" / "ISE_folder_cpu" / "RecModel"
    log = (run / "train.log").read_text(encoding="utf-8")
    for words in (
        "34 tracklets (median 3.5 frames",
        "tell tracklets and cameras",
        "this run will take about",
        "Clustering.tracklet_aware",
        "[Epoch 2/2]",
    ):
        assert words in log
    assert "Recommended: Clustering.tracklet_eps=" in output
    with np.load("output/walks.npz", allow_pickle=False) as content:
        assert len(np.unique(content["tracklet_ids"])) == 34
    for page in ("output/search.html", "output/people/clusters.html", str(run / "report.html")):
        assert b"</html>" in (tmp_path / page).read_bytes()
    assert re.search(r"\n0\.\d+ \| ", output)  # mAP of the folders


def test_keys_of_the_guide_are_keys_of_the_data_set():
    """Keys that the page names in passing, and those of the recipes."""
    page = PAGE.read_text(encoding="utf-8")
    recipe = (REPOSITORY / "configs" / "ISE_folder_cpu.yaml").read_text(encoding="utf-8")
    known = {"tracklet_pattern", "tracklet_from_folder", "camera_pattern", "camera_from_folder"}
    known |= {"table", "frame_step", "max_per_tracklet"}
    assert all(f"        {key}: " in recipe and key in page for key in known)
    named = re.findall(r"DataLoader\.Train\.dataset\.(\w+)", page)
    assert named and set(named) <= known
