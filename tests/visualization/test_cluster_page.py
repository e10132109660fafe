# SPDX-License-Identifier: Apache-2.0
"""The page of a clustering as a file: what is in it, how large it is, and its limits."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.clustering.sample_graph import GraphSettings
from ppcls_ise.visualization import cluster_parts
from ppcls_ise.visualization.cluster_page import write_cluster_page
from ppcls_ise.visualization.embedding_map import embedding_map
from ppcls_ise.visualization.thumbnails import Thumbnails, moved

SETTINGS = GraphSettings(0.5, 4, {"k1": 10, "k2": 3})


def noise(folder, count):
    """Images that no compression makes small."""
    generator = np.random.default_rng(0)
    paths = []
    for i in range(count):
        path = folder / f"{i:05d}.png"
        Image.fromarray(generator.integers(0, 255, (160, 80, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


def features_of(labels, dim=16):
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((labels.max(initial=0) + 1, dim))[labels]
    rows = rows + 0.2 * generator.standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def data_of(path):
    text = path.read_text(encoding="utf-8")
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(block[1])


@pytest.mark.parametrize(
    "labels", [[], [-1], [0, 0, 0, 0], [-1] * 12, [0] * 9 + [1] * 9, list(range(9))]
)
def test_small_and_odd_clusterings_have_a_page(labels, tmp_path):
    labels = np.array(labels, np.int64)
    record = ClusteringRecord.describe(noise(tmp_path, len(labels)), features_of(labels), labels)
    write_cluster_page(tmp_path / "page.html", record, SETTINGS, title="page")
    data = data_of(tmp_path / "page.html")
    assert len(data["dots"]) == len(labels)
    assert len({crop["p"] for crop in data["crops"]}) == len(labels)


def test_equal_features_have_a_page(tmp_path):
    rows = np.zeros((12, 16), np.float32)
    rows[:, 0] = 1
    record = ClusteringRecord.describe(noise(tmp_path, 12), rows, np.repeat([0, 1], 6))
    write_cluster_page(tmp_path / "page.html", record, SETTINGS, title="page")


def test_images_that_are_gone_are_named(tmp_path):
    labels = np.repeat([0, 1], 6)
    paths = noise(tmp_path, 12)
    record = ClusteringRecord.describe([*paths[:-1], "/gone/x.jpg"], features_of(labels), labels)
    write_cluster_page(tmp_path / "page.html", record, SETTINGS, title="page")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "1 images cannot be read any more: cannot read image /gone/x.jpg" in text
    (crop,) = [
        crop for crop in data_of(tmp_path / "page.html")["crops"] if crop["p"].endswith("x.jpg")
    ]
    assert crop["t"] == -1


def test_moved_images_are_found(tmp_path):
    (tmp_path / "now").mkdir()
    paths = noise(tmp_path / "now", 2)
    thumbnails = Thumbnails(moved("/then", str(tmp_path / "now")))
    assert thumbnails.number("/then/00000.png") == 0 and not thumbnails.missing
    assert thumbnails.number(paths[1]) == 1  # not below the old folder


def test_thumbnails_stay_within_their_bytes_and_are_there_once(tmp_path):
    paths = noise(tmp_path, 30)
    thumbnails = Thumbnails(most_bytes=20_000)
    numbers = [thumbnails.number(path) for path in [*paths, *paths]]
    assert numbers[:30] == numbers[30:] and thumbnails.left_out == numbers[:30].count(-1) > 0
    assert sum(map(len, thumbnails.uris)) < 20_000 + max(map(len, thumbnails.uris)) + 1


def test_samples_are_stated(tmp_path, monkeypatch):
    for name, value in (("_GRAPH_IMAGES", 60), ("_DOTS", 20), ("_OUTLIERS", 5)):
        monkeypatch.setattr(cluster_parts, name, value)
    monkeypatch.setattr(cluster_parts, "_CARDS", {"doubtful": 3, "largest": 2})
    labels = np.repeat(np.arange(20), 6)
    labels[::6] = -1
    record = ClusteringRecord.describe(noise(tmp_path, 120), features_of(labels), labels)
    write_cluster_page(tmp_path / "page.html", record, SETTINGS, title="page")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for words in ("of 20 clusters are shown", "the map shows 20 of 120", "5 of 20 images without"):
        assert words in text
    assert "the range of eps is measured on" in text
    assert text.count('class="card"') <= 5


def test_the_map_is_the_same_every_time():
    rows = features_of(np.repeat(np.arange(4), 10))
    places = embedding_map(rows)
    assert np.array_equal(places, embedding_map(rows))
    assert places.min() == 0 and places.max() == 1000
    groups = places.reshape(4, 10, 2)
    within = np.abs(groups - groups.mean(axis=1, keepdims=True)).max()
    assert within < 400  # one person is in one place
    assert embedding_map(rows[:1]).tolist() == [[0, 0]]
    assert embedding_map(np.empty((0, 4), np.float32)).shape == (0, 2)
