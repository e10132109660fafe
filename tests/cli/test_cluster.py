# SPDX-License-Identifier: Apache-2.0
"""ppcls-ise cluster: crops of people that a made-up network tells apart by their file names."""

import argparse
import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ppcls_ise
from ppcls_ise.data.images import ImageReadError, check_image_header
from ppcls_ise.errors import ConfigError, DataError

PEOPLE = {"ann": 9, "bob": 12, "cy": 7, "dee": 10}


class Network:
    """An `Extractor`: the feature is that of the person whom the name begins with, and some noise
    of the file's own."""

    fingerprint, arithmetic, dimension, normalized = "model 1", "float32", 16, True

    def __init__(self):
        self.seen = []
        self.stop_after = None

    def extract(self, paths):
        from ppcls_ise.deploy.extractor import Extraction

        kept, rows, errors = [], [], []
        for i, path in enumerate(paths):
            if self.stop_after is not None and len(self.seen) >= self.stop_after:
                raise KeyboardInterrupt
            self.seen.append(path)
            try:
                check_image_header(path)
            except ImageReadError as error:
                errors.append(error)
                continue
            name = os.path.basename(path)
            row = np.eye(16)[list(PEOPLE).index(name.split("_")[0])]
            row = row + 0.04 * np.random.default_rng(list(name.encode())).standard_normal(16)
            rows.append(row / np.linalg.norm(row))
            kept.append(i)
        return Extraction(np.array(rows, np.float32).reshape(-1, 16), np.array(kept), errors)


@pytest.fixture
def crops(tmp_path):
    folder = tmp_path / "crops"
    for person, count in PEOPLE.items():
        for i in range(count):
            path = folder / f"cam{i % 3 + 4}" / f"{person}_{i}.{'png' if i == 5 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = 20 + 50 * list(PEOPLE).index(person)
            Image.fromarray(np.full((32, 16, 3), shade + i, np.uint8)).save(path)
    return folder


@pytest.fixture
def cluster(crops, tmp_path, monkeypatch):
    """cluster("--option", ...): the command; ``cluster.network`` is its network."""
    ppcls_ise.register()
    from ppcls_ise.cli import cluster as command

    network = Network()
    monkeypatch.setattr(command, "make_extractor", lambda args: network)
    monkeypatch.setattr("ppcls_ise.deploy.feature_store._BLOCK", 8)

    def call(*options, out="people"):
        parser = argparse.ArgumentParser()
        command.configure(parser)
        always = ["--images", str(crops), "--out", str(tmp_path / out), "--k1", "8", "--k2", "3"]
        return command.command(parser.parse_args([*always, *map(str, options)]))

    call.network = network
    return call


def clusters(folder):
    """Cluster -> names of its images."""
    found = {}
    with (folder / "clusters.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(int(row["cluster"]), set()).add(Path(row["path"]).name)
    return found


def person(names):
    (found,) = {name.split("_")[0] for name in names}
    return found


def test_from_crops_to_a_training_set_and_back(cluster, crops, tmp_path):
    """The whole way: clusters, corrections in two rounds, a training set that is read again."""
    from ppcls_ise.data import MarketStyleDataset

    out = tmp_path / "people"
    report = cluster("--camera-pattern", r"cam(\d)/", "--eps", "0.6")
    assert "38 images: 4 clusters, 0 images in none" in report
    found = clusters(out)
    assert sorted(found) == [1, 2, 3, 4]
    assert {person(names): len(names) for names in found.values()} == PEOPLE
    with (out / "clusters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "cluster", "camera", "tracklet", "distance", "silhouette"]
    assert [row["path"] for row in rows] == sorted(str(p) for p in crops.glob("*/*"))
    assert {Path(row["path"]).parent.name[-1] == row["camera"] for row in rows} == {True}
    assert all(0 < float(row["distance"]) < 1 and float(row["silhouette"]) > 0.5 for row in rows)
    page = (out / "clusters.html").read_text()
    assert "Cluster 4" in page and "Cluster 0" not in page and "Clustering." not in page

    number = {person(names): cluster for cluster, names in found.items()}
    bob, dee, cy = number["bob"], number["dee"], number["cy"]
    (tmp_path / "a.csv").write_text(f"action,cluster,with,path\nmerge,{dee},{bob},\n")
    settings = ("--camera-pattern", r"cam(\d)/", "--eps", "0.6")
    assert "1 corrections of" in cluster(*settings, "--corrections", tmp_path / "a.csv")
    assert clusters(out)[min(bob, dee)] == found[bob] | found[dee]
    assert clusters(out)[cy] == found[cy]
    wrong = next(str(p) for p in crops.glob("*/cy_3.jpg"))
    (tmp_path / "b.csv").write_text(
        f"action,cluster,with,path\nsplit,{min(bob, dee)},,\nremove,{cy},,{wrong}\n"
    )
    cluster(*settings, "--corrections", tmp_path / "b.csv", "--folders", "link")
    # Numbers stay: the larger person has the merged number, the other a new one.
    corrected = clusters(out)
    assert corrected[min(bob, dee)] == found[bob] and corrected[5] == found[dee]
    assert corrected[cy] == found[cy] - {"cy_3.jpg"} and corrected[-1] == {"cy_3.jpg"}
    assert corrected[number["ann"]] == found[number["ann"]]
    with pytest.raises(ConfigError, match="have been applied"):
        cluster(*settings, "--corrections", tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text(
        f"action,cluster,with,path\nremove,{number['ann']},,\nsplit,9,,\n"
    )
    before = (out / "corrections.csv").read_bytes()
    with pytest.raises(DataError, match="correction 5 .split 9.: there is no cluster 9"):
        cluster(*settings, "--corrections", tmp_path / "c.csv")
    assert (out / "corrections.csv").read_bytes() == before

    dataset = MarketStyleDataset(str(out), "bounding_box_train")
    assert len(dataset) == 37 and set(dataset.camids) == {0, 1, 2}
    people = {}
    for path, pid in zip(dataset.images, dataset.pids, strict=True):
        people.setdefault(int(pid), set()).add(os.path.basename(os.readlink(path)))
    assert people == {number: names for number, names in corrected.items() if number > 0}
    assert dataset[0][0].shape == (3, 32, 16)
    # Copies take the place of the links, which nobody has touched.
    cluster(*settings, "--folders", "copy")
    assert not any(p.is_symlink() for p in (out / "bounding_box_train").iterdir())
    assert len(MarketStyleDataset(str(out), "bounding_box_train")) == 37


def test_what_a_killed_command_computed_is_kept(cluster, crops, tmp_path):
    cluster.network.stop_after = 20
    with pytest.raises(KeyboardInterrupt):
        cluster("--eps", "0.6")
    assert len(list((tmp_path / "people" / "features").glob("*.safetensors"))) == 2
    cluster.network.stop_after, cluster.network.seen = None, []
    cluster("--eps", "0.6")
    assert len(cluster.network.seen) == 38 - 16
    cluster.network.seen.clear()
    cluster("--eps", "0.6")
    assert cluster.network.seen == []
    # A file that changed is computed again, and its clusters are others.
    changed = crops / "cam4" / "ann_0.jpg"
    Image.fromarray(np.zeros((32, 16, 3), np.uint8)).save(changed)
    os.utime(changed, ns=(1, 1))
    with pytest.raises(ConfigError, match="1 images are changed, .*ann_0.jpg.*--recluster"):
        cluster("--eps", "0.6")
    assert cluster.network.seen == [str(changed)]
    cluster("--eps", "0.6", "--recluster")
    cluster.network.fingerprint = "model 2"
    with pytest.raises(DataError, match="features of another model .model 1, this one is model 2"):
        cluster("--eps", "0.6")


def test_nothing_of_the_users_is_replaced(cluster, tmp_path):
    out = tmp_path / "people"
    out.mkdir()
    (out / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds other things .notes.txt.: name a new folder"):
        cluster("--eps", "0.6")
    (out / "notes.txt").unlink()
    cluster("--eps", "0.6", "--folders", "copy")
    with pytest.raises(ConfigError, match="eps was 0.6, is 0.5.*--recluster"):
        cluster("--eps", "0.5")
    for name, change in (
        ("clusters.csv", lambda path: path.write_text("mine")),
        ("clusters.html", lambda path: path.write_text("mine")),
        ("bounding_box_train", lambda path: next(path.iterdir()).unlink()),
    ):
        before = shutil.copytree if (out / name).is_dir() else shutil.copy
        before(out / name, tmp_path / name)
        change(out / name)
        with pytest.raises(ConfigError, match=f"{name} was changed since it was written"):
            cluster("--eps", "0.6", "--folders", "copy")
        shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
        cluster("--eps", "0.6", "--folders", "copy")
    # Corrections are of the clusters that they were made for.
    (tmp_path / "a.csv").write_text("action,cluster,with,path\nmerge,1,2,\n")
    cluster("--eps", "0.6", "--corrections", tmp_path / "a.csv")
    with pytest.raises(ConfigError, match="and corrections of them: name another --out"):
        cluster("--eps", "0.5", "--recluster")
    (out / "corrections.csv").unlink()
    assert "eps 0.5: given" in cluster("--eps", "0.5", "--recluster")


def test_images_that_cannot_be_read(cluster, crops, tmp_path):
    (crops / "cam4" / "bob_bad.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 39 images .*bob_bad.jpg.*--skip-unreadable"):
        cluster("--eps", "0.6")
    cluster.network.seen.clear()
    assert "38 images: 4 clusters" in cluster("--eps", "0.6", "--skip-unreadable")
    assert len(cluster.network.seen) == 1  # the damaged one; the others were kept


def test_tracklets_keep_together_and_eps_is_chosen(cluster, crops, tmp_path):
    table = tmp_path / "t.csv"
    lines = [
        f"{p.parent.name}/{p.name},{p.parent.name},{p.name.split('_')[0]}"
        for p in sorted(crops.glob("*/*"))
    ]
    table.write_text("\n".join(["path,camera,tracklet", *lines]) + "\n")
    report = cluster("--table", table)
    assert "eps 0." in report and "stability 0.85" in report
    for names in clusters(tmp_path / "people").values():
        person(names)
    with (tmp_path / "people" / "clusters.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["camera"] == "cam4" and row["tracklet"].startswith("ann")
    with pytest.raises(ConfigError, match="--camera-aware needs cameras"):
        cluster("--camera-aware", out="other")
    with pytest.raises(ConfigError, match="--eps has to be a Jaccard distance"):
        cluster("--eps", "1.5", out="third")


def test_few_images_and_no_clusters(cluster, crops, tmp_path):
    report = cluster("--eps", "0", "--folders", "copy")
    assert "0 clusters, 38 images in none" in report
    assert list((tmp_path / "people" / "bounding_box_train").iterdir()) == []
    with pytest.raises(DataError, match="no eps stands out: .*--eps.*0.5: "):
        cluster("--min-samples", "30", out="other")
    for path in sorted(crops.rglob("*.*"))[1:]:
        path.unlink()
    assert "1 images: 0 clusters" in cluster("--eps", "0.6", out="one")
    same = next(crops.rglob("*.*"))
    for i in range(5):  # copies of one image
        shutil.copy(same, same.with_name(f"ann_0{i}.jpg"))
    assert "6 images: 1 clusters, 0 images in none" in cluster("--eps", "0.6", out="copies")


def test_wrong_places_are_said_in_the_words_of_the_command(cluster, crops, tmp_path):
    with pytest.raises(DataError, match="^--images: there is no folder"):
        cluster("--images", tmp_path / "none")
    for place in (crops, crops / "cam4" / "people"):
        with pytest.raises(ConfigError, match="^--out: .* lies in --images"):
            cluster("--out", place)
    assert not (crops / "cam4" / "people").exists()
    with pytest.raises(DataError, match="^--camera-pattern 'x.y.' finds no camera in"):
        cluster("--camera-pattern", "x(y)")
    with pytest.raises(ConfigError, match="^--camera-pattern 'x' has no group"):
        cluster("--camera-pattern", "x")


@pytest.mark.slow
def test_marks_on_the_page_are_corrections(cluster, tmp_path, browser):
    from ppcls_ise.data.correction_file import read_corrections

    cluster("--eps", "0.6")
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    file = tmp_path / "people" / "clusters.html"
    page.goto(file.as_uri())
    page.click("#gallery .card[data-cluster='2'] [data-action='merge']")
    page.click("#gallery .card[data-cluster='4'] [data-action='merge']")
    page.click("#gallery .card[data-cluster='3'] [data-action='split']")
    page.check("#marking")
    page.click("#gallery .card[data-cluster='1'] .crop >> nth=0")
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "c.csv")
    assert errors == [] and {url.split(":")[0] for url in requests} <= {"file", "data", "blob"}
    merge, split, remove = read_corrections(tmp_path / "c.csv")
    assert merge[:3] == ("merge", 2, 4) and split[:2] == ("split", 3)
    assert remove[:2] == ("remove", 1) and Path(remove.path).is_file()
    before = clusters(tmp_path / "people")
    cluster("--eps", "0.6", "--corrections", tmp_path / "c.csv")
    after = clusters(tmp_path / "people")
    assert after[2] == before[2] | before[4] and 4 not in after
    assert after[3] | after[5] == before[3] and after[5]
    assert after[-1] == {Path(remove.path).name}
    page.goto(file.as_uri())
    assert page.locator(".card[data-cluster='5']").count() == 1
    assert errors == []
