# SPDX-License-Identifier: Apache-2.0
"""A clustering that is kept: distances and silhouettes against slow ones, the file, the table."""

import csv
import os

import numpy as np
import pytest

from ppcls_ise.clustering import jaccard_graph
from ppcls_ise.clustering.doubts import (
    cluster_table,
    likely_pairs,
    nearest_across,
    split_parts,
)
from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.clustering.sample_graph import GraphSettings, graph_of, sample_of, splits_of
from ppcls_ise.errors import DataError


def groups(sizes, *, dim=32, spread=0.3, seed=0):
    """Unit features around random directions, and the group of each."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = generator.standard_normal((len(sizes), dim))[labels]
    rows += spread * generator.standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def names(count):
    return [f"/data/{i:05d}.jpg" for i in range(count)]


def record_of(features, labels, **options):
    return ClusteringRecord.describe(names(len(labels)), features, labels, **options)


def test_distances_and_silhouettes_against_loops():
    features, labels = groups([5, 8, 3])
    labels[[0, 7]] = -1
    record = record_of(features, labels)
    centers = []
    for cluster in range(3):
        mean = features[labels == cluster].astype(np.float64).mean(axis=0)
        centers.append(mean / np.linalg.norm(mean))
    for i, label in enumerate(labels):
        away = [float(np.linalg.norm(features[i] - center)) for center in centers]
        if label < 0:
            assert np.isnan(record.distances[i]) and np.isnan(record.silhouettes[i])
            assert record.others[i] == int(np.argmin(away))
            continue
        a, b = away[label], min(d for c, d in enumerate(away) if c != label)
        assert record.distances[i] == pytest.approx(a, abs=1e-4)
        assert record.silhouettes[i] == pytest.approx((b - a) / max(a, b), abs=1e-3)
        assert away[record.others[i]] == pytest.approx(b, abs=1e-4)


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (np.eye(4, 8, dtype=np.float32), [-1, -1, -1, -1]),
        (np.ones((4, 8), np.float32) / 8**0.5, [0, 0, 1, 1]),  # copies in two clusters
        (np.eye(3, 8, dtype=np.float32), [0, 0, 0]),  # one cluster
        (np.zeros((3, 8), np.float32), [-1, 0, 0]),  # images that could not be read
        (np.eye(1, 8, dtype=np.float32), [0]),
        (np.empty((0, 8), np.float32), []),
    ],
)
def test_limits(features, labels, tmp_path):
    labels = np.array(labels, np.int64)
    record = record_of(features, labels)
    inside = labels >= 0
    assert np.isfinite(record.distances[inside]).all()
    assert (np.isfinite(record.silhouettes[inside]) == (record.num_clusters > 1)).all()
    table = cluster_table(record)
    assert len(table.flags) == record.num_clusters and np.isfinite(table.doubts).all()
    likely_pairs(record, table.widths, 5)
    record.write(tmp_path / "c.safetensors")
    record.write_table(tmp_path / "c.csv")
    assert ClusteringRecord.read(tmp_path / "c.safetensors").paths == record.paths


def test_the_file_keeps_everything(tmp_path):
    features, labels = groups([6, 6, 6])
    paths = [os.fsdecode(b"/a/\xff %d.jpg" % i) for i in range(18)]
    record = ClusteringRecord.describe(
        paths, features, labels, camids=np.arange(18) % 2, pids=labels, epoch=7
    )
    record.write(tmp_path / "c.safetensors")
    again = ClusteringRecord.read(tmp_path / "c.safetensors")
    assert again.paths == paths and again.epoch == 7 and again.tracklets is None
    for name in ("labels", "centroids", "distances", "silhouettes", "features", "camids", "pids"):
        assert np.array_equal(getattr(again, name), getattr(record, name))
    data = bytearray((tmp_path / "c.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "c.safetensors").write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        ClusteringRecord.read(tmp_path / "c.safetensors")


def test_large_sets_keep_a_sample_of_the_features():
    features, labels = groups([50, 50])
    record = record_of(features, labels, most_features=30)
    assert len(record.rows) == len(record.features) == 30 and len(record.labels) == 100
    assert np.array_equal(record.features, features[record.rows].astype(np.float16))
    assert np.isfinite(record.distances).all()  # of all images
    assert np.array_equal(np.flatnonzero(np.isfinite(record.silhouettes)), record.rows)
    table = cluster_table(record)
    assert np.isfinite(table.silhouettes).all() and likely_pairs(record, table.widths, 1)


def test_the_table(tmp_path):
    features, labels = groups([3, 3])
    labels[0] = -1
    record = ClusteringRecord.describe(
        ["=1+1.jpg", 'a,"b.jpg', *names(4)], features, labels, camids=np.array([0, -1, 0, 1, 1, 1])
    )
    record.write_table(tmp_path / "c.csv")
    with open(tmp_path / "c.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows[:2]] == ["./=1+1.jpg", 'a,"b.jpg']
    assert [row["camera"] for row in rows] == ["0", "", "0", "1", "1", "1"]
    assert rows[0]["cluster"] == "-1" and rows[0]["distance"] == rows[0]["silhouette"] == ""
    assert all(row["tracklet"] == "" for row in rows)


def test_flags_of_make_up():
    features, labels = groups([6, 6, 6, 6])
    cameras = np.tile([0, 1, 2], 8)
    cameras[:6] = 4  # cluster 0
    tracklets = np.repeat(np.arange(8), 3)
    tracklets[6:9] = 0  # tracklet 0 is in clusters 0 and 1
    table = cluster_table(record_of(features, labels, camids=cameras, tracklets=tracklets))
    assert [("one camera" in flags) for flags in table.flags] == [True, False, False, False]
    assert [("shared tracklet" in flags) for flags in table.flags] == [True, True, False, False]
    assert table.cameras.tolist() == [1, 3, 3, 3]
    assert table.doubts[0] == table.doubts.max()


def test_a_wide_cluster_is_seen():
    features, labels = groups([10] * 9, spread=0.1)
    mixed, _ = groups([5, 5], spread=0.1, seed=1)
    record = record_of(np.concatenate([features, mixed]), np.concatenate([labels, [9] * 10]))
    table = cluster_table(record)
    assert "wide" in table.flags[9] and table.doubts.argmax() == 9


def test_halves_of_one_person_are_the_first_pair():
    features, labels = groups([8] * 6, spread=0.4)
    labels = labels.copy()
    labels[labels == 5] = 4  # one direction too many: take group 4 in halves instead
    halves = np.flatnonzero(labels == 4)
    features[halves] = features[halves[0]] + 0.1 * features[halves]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels[halves[::2]] = 5
    record = record_of(features, labels)
    first = likely_pairs(record, cluster_table(record).widths, 3)[0]
    assert first.clusters == (4, 5) and first.mutual and first.leaning > 0.5
    positions = [np.flatnonzero(labels == c) for c in range(6)]
    left, right, _ = nearest_across(record, 4, 5, positions)
    products = features[positions[4]] @ features[positions[5]].T
    best = features[left] @ features[right]
    assert best == pytest.approx(products.max(), abs=2e-3) and labels[left] == 4


def test_two_people_in_one_cluster_fall_apart():
    features, people = groups([12, 12, 12], spread=0.25)
    labels = np.where(people == 2, 1, 0)  # people 0 and 1 together
    graph = jaccard_graph(features, k1=8, k2=3, max_distance=1.0)
    members = np.flatnonzero(labels == 0)
    parts, eps = split_parts(graph[members][:, members], 0.9, 4)
    assert eps < 0.9
    for part in set(parts) - {-1}:
        assert len(set(people[members[parts == part]])) == 1
    one = np.flatnonzero(people == 2)
    assert split_parts(graph[one][:, one], 0.9, 4) is None
    assert split_parts(graph[:3][:, :3], 0.9, 4) is None  # too few for two parts

    record = record_of(features, labels)
    settings = GraphSettings(0.9, 4, {"k1": 8, "k2": 3})
    everything = sample_of(record, 1000, np.arange(2))
    assert np.array_equal(everything, np.arange(36))
    again = graph_of(record, everything, settings, 0.9)
    counts, found = splits_of(record, everything, again, settings)
    assert counts.tolist() == [2, 1] and set(found) == {0}


def test_a_sample_is_of_whole_clusters():
    features, labels = groups([10] * 20)
    labels = labels.copy()
    labels[::10] = -1
    record = record_of(features, labels)
    order = np.arange(20)[::-1]
    sample = sample_of(record, 60, order)
    inside = labels[sample][labels[sample] >= 0]
    assert set(np.bincount(inside, minlength=20)) == {0, 9} and inside.min() > 10
    assert 0 < np.count_nonzero(labels[sample] < 0) < 20
