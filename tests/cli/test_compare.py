# SPDX-License-Identifier: Apache-2.0
"""ppcls-ise compare, on histories as runs write them."""

import argparse
import csv

import pytest
from PIL import Image

from ppcls_ise.cli import compare
from ppcls_ise.errors import ConfigError, DataError

HEADER = "epoch,loss,clusters,outlier_share,largest,mAP,seconds_training\n"
FIRST = "1,2.5,40,0.5,30,,60\n2,1.5,50,0.25,20,0.5,60\n3,1,52,0.2,21,0.4,\n"
SECOND = "1,2.5,9,0.125,300,,30\n"


@pytest.fixture
def runs(tmp_path):
    """A finished run, and one that was stopped in its second epoch."""
    for folder, rows, eps in (("a", FIRST, 0.5), ("b/RecModel", SECOND, 0.6)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "history.csv").write_text(HEADER + rows)
        (tmp_path / folder / "config.yaml").write_text(
            f"Global: {{output_dir: {folder}, seed: 1}}\nClustering: {{eps: {eps}}}\n"
            "Loss:\n- CELoss: {weight: 1}\n"
        )
    return tmp_path


def run(*arguments):
    parser = argparse.ArgumentParser()
    compare.configure(parser)
    return compare.command(parser.parse_args([str(argument) for argument in arguments]))


def test_a_row_per_run_and_the_keys_that_differ(runs):
    report = run(runs / "a", runs / "b", "--csv", runs / "t.csv", "--plot", runs / "p.png")
    head, first, second, *rest = report.splitlines()
    assert head.split() == ("run epochs clusters outliers largest mAP best mAP minutes".split())
    assert first.split() == ["a", "3", "52", "20.0%", "21", "0.4000", "0.5000", "2.0"]
    assert second.split() == ["b", "1", "9", "12.5%", "300", "-", "-", "0.5"]
    assert rest[:3] == ["", "configurations differ in", "  Clustering.eps: 0.5, 0.6"]
    assert len(rest) == 5  # and the two files
    with (runs / "t.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["run"] for row in table] == ["a", "b"]
    assert table[0]["loss"] == "1.0" and table[1]["mAP"] == "" and table[0]["best"] == "0.5"
    with Image.open(runs / "p.png") as picture:
        assert picture.size[0] == 1100 and len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_what_is_no_run_is_named(runs):
    (runs / "c").mkdir()
    with pytest.raises(DataError, match="/c holds no run: there is no history.csv"):
        run(runs / "a", runs / "c")
    with pytest.raises(ConfigError, match="named twice"):
        run(runs / "a", runs / "a" / ".")
    with pytest.raises(ConfigError, match="--plot has to end in .png"):
        run(runs / "a", "--plot", runs / "p.txt")
    (runs / "c" / "history.csv").write_text(HEADER)
    with pytest.raises(DataError, match="no epoch was finished"):
        run(runs / "c")
    (runs / "c" / "history.csv").write_text(HEADER + "x\n")
    with pytest.raises(DataError, match="is no history.csv"):
        run(runs / "c")
    (runs / "a" / "config.yaml").write_text("a: [")
    with pytest.raises(DataError, match="is no YAML"):
        run(runs / "a")
