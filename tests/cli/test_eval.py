# SPDX-License-Identifier: Apache-2.0
"""ppcls-ise eval on folders, against counting by hand."""

import argparse
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import ppcls_ise
from ppcls_ise.errors import ConfigError, DataError

PERSON, CAMERA = r"^(?:.*/)?(\d+)_", r"_c(\d+)"


class Network:
    """An `Extractor` whose feature of a file is drawn by its name: random, with a little of the
    person in it."""

    dimension = 12

    def __call__(self, paths, *, progress=None):
        return np.array([self.feature(path) for path in paths], np.float32)

    def feature(self, path):
        name = str(path).rsplit("/", 1)[-1]
        row = np.random.default_rng(list(name.encode())).standard_normal(12)
        row[int(name.split("_")[0]) % 12] += 1.5
        return row / np.linalg.norm(row)


@pytest.fixture
def evaluate(monkeypatch, capsys):
    ppcls_ise.register()
    from ppcls_ise.cli import eval as command

    monkeypatch.setattr(command, "make_extractor", lambda args: Network())

    def call(*options):
        parser = argparse.ArgumentParser()
        command.configure(parser)
        report = command.command(parser.parse_args(["--model", "m", *map(str, options)]))
        cells = re.findall(r"[^|\s][^|\n]*", report.split("\n-")[0].rsplit("\n", 1)[-1])
        values = report.split("-\n")[1].split("\n")[0].split("|")
        return report, {k.strip(): float(v) for k, v in zip(cells, values, strict=True)}

    return call


@pytest.fixture
def folders(tmp_path):
    """query/ and gallery/ with names like 0003_c2_t1_5.jpg; one file is in both."""
    random = np.random.default_rng(3)
    for side, count in (("query", 20), ("gallery", 70)):
        (tmp_path / side / "sub").mkdir(parents=True)
        for i in range(count):
            person, camera = random.integers(0, 6), random.integers(1, 4)
            sub = "sub/" if i % 5 == 0 else ""
            name = f"{sub}{person:04d}_c{camera}_t{random.integers(0, 2)}_{side}{i}.jpg"
            Image.new("RGB", (8, 16), (i, 0, 0)).save(tmp_path / side / name)
    (tmp_path / "gallery" / "0001_c1_t0_link.jpg").symlink_to(
        next((tmp_path / "query").glob("0001_*.jpg"))
    )
    return tmp_path / "query", tmp_path / "gallery"


def average_precision(folders, same):
    """Mean over the queries of the average precision, by sorting; ``same(query, image)`` tells the
    images that do not count."""
    query, gallery = (sorted(folder.rglob("*.jpg")) for folder in folders)
    network, precisions = Network(), []
    for q in query:
        kept = [g for g in gallery if not (same(q, g) and g.name[:4] == q.name[:4])]
        scores = [float(network.feature(q) @ network.feature(g)) for g in kept]
        hits = [kept[i].name[:4] == q.name[:4] for i in np.argsort(-np.array(scores))]
        ranks = np.flatnonzero(hits) + 1
        if len(ranks):
            precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return np.mean(precisions)


def test_cameras_tracklets_or_nothing(evaluate, folders):
    both = ("--query", folders[0], "--gallery", folders[1], "--identity-pattern", PERSON)

    def camera(path):
        return path.name.split("_")[1]

    def tracklet(path):
        return path.name.split("_")[2]

    def own(q, g):
        return q.resolve() == g.resolve()

    report, values = evaluate(*both)
    assert "neither cameras nor tracklets are known" in report and values["skipped"] == 0
    assert values["mAP"] == pytest.approx(average_precision(folders, own), abs=6e-5)
    report, values = evaluate(*both, "--camera-pattern", CAMERA)
    assert "unless they are of the query's camera" in report
    by_camera = average_precision(folders, lambda q, g: own(q, g) or camera(q) == camera(g))
    assert values["mAP"] == pytest.approx(by_camera, abs=6e-5)
    report, values = evaluate(*both, "--tracklet-pattern", r"(\d+)_c\d_(t\d)")
    assert "of the query's tracklet (no cameras are known)" in report
    by_tracklet = average_precision(folders, lambda q, g: own(q, g) or tracklet(q) == tracklet(g))
    assert values["mAP"] == pytest.approx(by_tracklet, abs=6e-5)
    # The same folder on both sides: a file is never its own match.
    report, values = evaluate("--query", folders[1], *both[2:])
    same = average_precision((folders[1], folders[1]), own)
    assert values["mAP"] == pytest.approx(same, abs=6e-5) and values["queries"] == 71


def test_a_table_tells_what_names_do_not(evaluate, folders, tmp_path):
    """One table for both folders, with the same numbers as the patterns."""
    rows = ["path,identity,camera"]
    for folder in folders:
        for path in folder.rglob("*.jpg"):
            person, camera = path.name.split("_")[:2]
            rows.append(f"{path},{person},{camera}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    both = ("--query", folders[0], "--gallery", folders[1])
    patterns = ("--identity-pattern", PERSON, "--camera-pattern", CAMERA)
    assert evaluate(*both, "--table", tmp_path / "t.csv") == evaluate(*both, *patterns)
    (tmp_path / "t.csv").write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(DataError, match="t.csv has no line for"):
        evaluate(*both, "--table", tmp_path / "t.csv")
    with pytest.raises(ConfigError, match="who is shown: --identity-pattern"):
        evaluate(*both)


def test_re_ranking_and_ranked_lists(evaluate, folders, tmp_path):
    both = ("--query", folders[0], "--gallery", folders[1], "--identity-pattern", PERSON)
    lists = tmp_path / "lists" / "r.png"
    report, plain = evaluate(*both, "--ranked-lists", lists)
    assert f"ranked lists of 12 queries: {lists}" in report
    with Image.open(lists) as picture:
        assert picture.size[1] > 12 * 96
    assert evaluate(*both, "--re-ranking")[1]["mAP"] != plain["mAP"]


def test_names_of_market_1501_are_scored_as_its_reader_does(evaluate, lite_set):
    """Junk is left out, distractors stay, and 0061 is 61 although other names are no numbers."""
    from ppcls_ise.data import MarketStyleDataset
    from ppcls_ise.metrics import ReIDMetric

    sides = []
    for split in ("query", "bounding_box_test"):
        dataset = MarketStyleDataset(str(lite_set), split)
        sides.append((Network()(dataset.images), dataset.pids, dataset.camids))
    folders = ("--query", lite_set / "query", "--gallery", lite_set / "bounding_box_test")
    names = ("--identity-pattern", r"(-?\d+)_c", "--camera-pattern", CAMERA)
    assert ReIDMetric()(*sides).table() in evaluate(*folders, *names)[0]


def test_what_is_missing_is_said(evaluate, folders, tmp_path):
    with pytest.raises(ConfigError, match="both --query FOLDER and --gallery FOLDER"):
        evaluate("--query", folders[0])
    with pytest.raises(ConfigError, match="--model is for folders"):
        evaluate()
    shutil.rmtree(folders[1])
    folders[1].mkdir()
    Image.new("RGB", (8, 16)).save(folders[1] / "0099_c1_t0_x.jpg")
    both = ("--query", folders[0], "--gallery", folders[1], "--identity-pattern", PERSON)
    with pytest.raises(DataError, match="no query has a match"):
        evaluate(*both)
