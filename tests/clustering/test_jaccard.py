# SPDX-License-Identifier: Apache-2.0
"""The Jaccard graph against a dense, loop-by-loop derivation and against the fixtures."""

import numpy as np
import pytest

from ppcls_ise.clustering import (
    jaccard_graph,
    k_nearest,
    membership,
    overlap,
    similarity_order,
)
from ppcls_ise.clustering.membership import half_length
from tests.conftest import read_reference, reference_files
from tests.emulated_processes import together


def unit(rows):
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype("f4")


def clustered(count, dim, clusters, seed):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, dim))
    return unit(centers[rng.integers(0, clusters, count)] + 0.6 * rng.normal(size=(count, dim)))


def memberships_oracle(features, sets):
    count = len(features)
    features = features.astype(np.float64)
    dense = np.zeros((count, count))
    for i, members in enumerate(sets):
        if members:
            chosen = sorted(members)
            weight = np.exp(-(2 - 2 * features[chosen] @ features[i]))
            dense[i, chosen] = weight / weight.sum()
    return dense


def distances_oracle(dense):
    count = len(dense)
    result = np.zeros((count, count))
    for i in range(count):
        shared = np.minimum(dense[i], dense).sum(axis=1)
        result[i] = np.maximum(1 - shared / (2 - shared), 0)
    np.fill_diagonal(result, 0)
    return result


def jaccard_oracle(features, rank, k1, k2):
    """Sets, loops and dense rows, straight from the definition."""
    count = len(features)

    place = [{j: p for p, j in enumerate(row)} for row in rank]

    def mutual(i, length):
        return {j for j in rank[i][:length] if place[j].get(i, length) < length}

    sets = []
    for i in range(count):
        reciprocal = mutual(i, k1)
        grown = set(reciprocal)
        for j in reciprocal:
            half = mutual(j, half_length(k1))
            if 3 * len(half & reciprocal) > 2 * len(half):
                grown |= half
        sets.append(grown)
    dense = memberships_oracle(features, sets)
    if k2 > 1:
        dense = np.array([dense[list(rank[i][: min(k1, k2)])].mean(axis=0) for i in range(count)])
    return distances_oracle(dense)


def camera_oracle(features, cameras, k1_intra, k1_inter, k2_intra, k2_inter):
    count = len(features)
    double = features.astype(np.float64)
    scores = np.array([(double * row).sum(axis=1) for row in double]).round(12)
    order = np.argsort(-scores, axis=1, kind="stable")
    intra = [[j for j in order[i] if cameras[j] == cameras[i]] for i in range(count)]
    inter = [[j for j in order[i] if cameras[j] != cameras[i]] for i in range(count)]
    a, b = k1_intra + 1, k1_inter + 1
    sets = [
        {j for j in intra[i][:a] if i in intra[j][:a]}
        | {j for j in inter[i][:b] if i in inter[j][:b]}
        for i in range(count)
    ]
    dense = memberships_oracle(features, sets)
    lists = [intra[i][:k2_intra] + inter[i][:k2_inter] for i in range(count)]
    return distances_oracle(np.array([dense[one].mean(axis=0) for one in lists]))


def check(graph, expected, max_distance=1.0, atol=5e-6):
    """Values, symmetry, order, and which pairs are stored (up to rounding at the bound)."""
    count = len(expected)
    assert graph.shape == (count, count) and graph.dtype == np.float32
    assert graph.format == "csr"
    row = np.repeat(np.arange(count), np.diff(graph.indptr))
    same_row = row[1:] == row[:-1]
    assert (np.diff(graph.indices)[same_row] > 0).all()
    np.testing.assert_allclose(graph.data, expected[row, graph.indices], atol=atol)
    stored = np.zeros((count, count), dtype=bool)
    stored[row, graph.indices] = True
    assert (stored == stored.T).all()
    assert stored.diagonal().all() and not graph.diagonal().any()
    assert (graph.data < max_distance).all()
    clear = np.abs(expected - max_distance) > atol
    np.testing.assert_array_equal(stored[clear], (expected < max_distance)[clear])


@pytest.mark.parametrize(
    ("k1", "k2"), [(30, 6), (20, 1), (15, 3), (1, 1), (2, 2), (5, 12), (500, 6), (500, 500)]
)
def test_agrees_with_the_definition(k1, k2):
    features = clustered(150, 12, 9, seed=k1)
    rank = k_nearest(features, k1)[0]
    expected = jaccard_oracle(features, rank.tolist(), k1, k2)
    check(jaccard_graph(features, k1, k2), expected)
    check(jaccard_graph(features, k1, k2, 0.6), expected, 0.6)


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_copies_and_zero_rows(seed):
    rng = np.random.default_rng(seed)
    features = clustered(60, 8, 5, seed)[rng.integers(0, 60, 140)]
    features[rng.random(140) < 0.1] = 0
    features[:40] = features[0]  # a group of copies larger than k1
    rank = k_nearest(features, 12)[0]
    check(jaccard_graph(features, 12, 4), jaccard_oracle(features, rank.tolist(), 12, 4))


def test_given_neighbors_are_used():
    features = clustered(90, 8, 6, seed=2)
    indices, similarities = k_nearest(features, 14)
    expected = jaccard_oracle(features, indices.tolist(), 10, 4)
    check(jaccard_graph(features, 10, 4, neighbors=indices), expected)
    check(jaccard_graph(features, 10, 4, neighbors=(indices, similarities)), expected)
    shuffled = indices.copy()
    shuffled[:, 1:10] = shuffled[:, 9:0:-1]
    expected = jaccard_oracle(features, shuffled.tolist(), 10, 4)
    check(jaccard_graph(features, 10, 4, neighbors=shuffled), expected)


def group_oracle(features, tracklets, cameras, k1_intra, k1_inter, k2_intra, k2_inter):
    """Lists of the own tracklet, of others (in the own camera) and of other cameras, by sorting."""
    count = len(features)
    double = features.astype(np.float64)
    scores = np.array([(double * row).sum(axis=1) for row in double]).round(12)
    order = np.argsort(-scores, axis=1, kind="stable")

    def kind(i, j):
        if tracklets[i] == tracklets[j]:
            return 0
        if cameras is None:
            return 2
        return 1 if cameras[i] == cameras[j] else 2

    lists = [[[j for j in order[i] if kind(i, j) == k] for k in range(3)] for i in range(count)]
    lengths = [k1_intra + 1, k1_intra + 1, k1_inter + 1]
    averaged = [k2_intra, k2_intra, k2_inter]
    sets = [
        {j for k in range(3) for j in lists[i][k][: lengths[k]] if i in lists[j][k][: lengths[k]]}
        for i in range(count)
    ]
    dense = memberships_oracle(features, sets)
    means = []
    for one in lists:
        rows = [j for k in range(3) for j in one[k][: averaged[k]]]
        means.append(dense[rows].mean(axis=0))
    return distances_oracle(np.array(means))


@pytest.mark.parametrize("lengths", [(5, 20, 2, 4), (1, 1, 1, 1), (8, 3, 12, 9)])
@pytest.mark.parametrize("count", [1, 2, 9, 40, 120])
@pytest.mark.parametrize("with_cameras", [False, True])
def test_tracklet_aware(count, lengths, with_cameras):
    rng = np.random.default_rng(count)
    features = clustered(120, 10, 8, seed=count)
    features[100:] = features[:20]
    features[50] = 0
    tracklets = rng.integers(0, count, 120) * 3
    cameras = tracklets % 4 if with_cameras else None
    names = ("k1_intra", "k1_inter", "k2_intra", "k2_inter")
    graph = jaccard_graph(
        features,
        tracklet_ids=tracklets,
        camera_ids=cameras,
        **dict(zip(names, lengths, strict=True)),
    )
    check(graph, group_oracle(features, tracklets, cameras, *lengths))


def test_tracklets_alone_are_as_cameras_would_be():
    features = clustered(150, 10, 8, seed=1)
    groups = np.random.default_rng(1).integers(0, 30, 150)
    by_camera = jaccard_graph(features, camera_ids=groups)
    by_tracklet = jaccard_graph(features, tracklet_ids=groups)
    assert (by_camera != by_tracklet).nnz == 0
    # An image in no tracklet is one of its own.
    single = np.where(groups < 10, -1, groups)
    named = np.where(groups < 10, 100 + np.arange(150), groups)
    alone = jaccard_graph(features, tracklet_ids=single)
    assert (alone != jaccard_graph(features, tracklet_ids=named)).nnz == 0


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ({"tracklet_ids": np.zeros(3, int)}, "10 integers"),
        ({"tracklet_ids": np.zeros(10)}, "float64"),
        (
            {"tracklet_ids": np.full(10, 7), "camera_ids": np.arange(10)},
            "tracklet 7 has images of two cameras",
        ),
        (
            {"tracklet_ids": np.zeros(10, int), "neighbors": np.zeros((10, 10), int)},
            "neighbors cannot be combined",
        ),
    ],
)
def test_tracklets_that_do_not_fit_are_refused(ids, words):
    with pytest.raises(ValueError, match=words):
        jaccard_graph(clustered(10, 4, 2, seed=0), **ids)


@pytest.mark.parametrize("lengths", [(5, 20, 2, 4), (5, 20, 3, 3), (1, 1, 1, 1), (8, 3, 12, 9)])
@pytest.mark.parametrize("cameras", [1, 2, 6, 60])
def test_camera_aware(cameras, lengths):
    rng = np.random.default_rng(cameras)
    features = clustered(120, 10, 8, seed=cameras)
    features[100:] = features[:20]
    camera_ids = rng.integers(0, cameras, 120) * 7 + 3
    expected = camera_oracle(features, camera_ids, *lengths)
    names = ("k1_intra", "k1_inter", "k2_intra", "k2_inter")
    graph = jaccard_graph(features, camera_ids=camera_ids, **dict(zip(names, lengths, strict=True)))
    check(graph, expected)
    if lengths == (5, 20, 2, 4):  # the defaults
        check(jaccard_graph(features, camera_ids=camera_ids, max_distance=0.5), expected, 0.5)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_tiny_sets(count):
    features = np.eye(4, dtype=np.float32)[:count]
    for extra in ({}, {"camera_ids": np.zeros(count)}):
        graph = jaccard_graph(features, **extra)
        assert graph.shape == (count, count) and graph.dtype == np.float32
        assert (graph.diagonal() == 0).all() and graph.diagonal().shape == (count,)


@pytest.mark.parametrize("max_distance", [1.0, 0.9, 0.6, 0.3])
def test_block_sizes_do_not_matter(monkeypatch, max_distance):
    features = clustered(150, 12, 9, seed=8)
    whole = jaccard_graph(features, 20, 5, max_distance)
    for module in (membership, overlap):
        monkeypatch.setattr(module, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(overlap, "_BLOCK_WORK", 300)
    monkeypatch.setattr(overlap, "_BLOCK_ENTRIES", 300)
    monkeypatch.setattr(overlap, "_PAIR_CHUNK", 5)
    monkeypatch.setattr(similarity_order, "_ROW_CHUNK_VALUES", 1)
    monkeypatch.setattr(membership, "_PAIRS", 3)
    parts = jaccard_graph(features, 20, 5, max_distance)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.data, whole.data, atol=1e-7)


@pytest.mark.parametrize("max_distance", [0.85, 0.6, 0.3])
def test_selected_pairs_lose_nothing(monkeypatch, max_distance):
    rng = np.random.default_rng(3)
    features = clustered(400, 10, 15, seed=3)[rng.integers(0, 400, 600)]
    selected = jaccard_graph(features, 25, 6, max_distance)
    monkeypatch.setattr(overlap, "_SELECTIVE_OVERLAP", 2.0)
    everything = jaccard_graph(features, 25, 6, max_distance)
    np.testing.assert_array_equal(selected.indptr, everything.indptr)
    np.testing.assert_array_equal(selected.indices, everything.indices)
    np.testing.assert_allclose(selected.data, everything.data, atol=1e-7)


def test_permuting_the_images_permutes_the_graph():
    features = clustered(200, 16, 12, seed=11)
    order = np.random.default_rng(0).permutation(200)
    first = jaccard_graph(features).toarray() + 0
    second = jaccard_graph(features[order]).toarray()
    np.testing.assert_allclose(first[np.ix_(order, order)], second, atol=1e-6)


def test_errors_name_the_argument():
    features = clustered(20, 4, 3, seed=0)
    with pytest.raises(ValueError, match="k1_intra.*tracklet_ids are missing"):
        jaccard_graph(features, k1_intra=5)
    with pytest.raises(ValueError, match="k1 must be at least 1, got 0"):
        jaccard_graph(features, 0)
    with pytest.raises(ValueError, match="k2 must be at least 1, got -1"):
        jaccard_graph(features, 5, -1)
    with pytest.raises(ValueError, match="max_distance"):
        jaccard_graph(features, max_distance=float("nan"))
    with pytest.raises(ValueError, match="k1_inter must be at least 1"):
        jaccard_graph(features, camera_ids=np.zeros(20), k1_inter=0)
    with pytest.raises(ValueError, match=r"camera_ids must have shape \(20,\)"):
        jaccard_graph(features, camera_ids=np.zeros(19))
    with pytest.raises(ValueError, match="neighbors must have shape"):
        jaccard_graph(features, 10, neighbors=np.zeros((20, 5), dtype=int))
    with pytest.raises(ValueError, match="neighbors must hold indices"):
        jaccard_graph(features, 5, neighbors=np.full((20, 5), 20))
    with pytest.raises(ValueError, match="cannot be combined"):
        jaccard_graph(features, neighbors=np.zeros((20, 20), int), camera_ids=np.zeros(20))
    features[3] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        jaccard_graph(features)


def test_reports_progress_and_seconds():
    calls, seconds = [], {}
    features = clustered(50, 16, 3, seed=0)
    jaccard_graph(features, 10, progress=lambda *call: calls.append(call), seconds=seconds)
    stages = list(dict.fromkeys(call[0] for call in calls))
    assert stages == ["neighbors", "order", "sets", "expansion", "jaccard"]
    assert calls[-1] == ("jaccard", 50, 50)
    assert set(seconds) == {"neighbors", "jaccard"}


@pytest.mark.parametrize("path", reference_files("jaccard_*.npz"))
@pytest.mark.parametrize("given_rank", [True, False], ids=["given rank", "own search"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_fixture(path, given_rank, size):
    data = read_reference(path)
    features, k1, k2 = data["features"], int(data["k1"]), int(data["k2"])
    expected = np.ones((len(features), len(features)))
    expected[data["rows"], data["cols"]] = data["vals"]
    expected[data["cols"], data["rows"]] = data["vals"]
    neighbors = data["initial_rank"] if given_rank else None
    for bound in (1.0, 0.7):
        graph, *_ = together(
            size,
            lambda processes, bound=bound: jaccard_graph(
                features, k1, k2, bound, neighbors=neighbors, processes=processes
            ),
        )
        check(graph, expected, bound)


@pytest.mark.parametrize("path", reference_files("jaccard_*.npz"))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_fixture_neighbors(path, size):
    data = read_reference(path)
    k1 = int(data["k1"])
    for lists, _ in together(size, lambda each: k_nearest(data["features"], k1, processes=each)):
        np.testing.assert_array_equal(lists, data["initial_rank"])


def test_the_bound_means_the_same_in_every_type(unit_rows):
    rows = unit_rows(np.random.default_rng(0), 60, 8)
    whole = jaccard_graph(rows, k1=8, k2=3)
    for bound in np.unique(whole.data)[1::40]:  # exclusive, so the entry itself is left out
        number = float(bound)
        graphs = [
            jaccard_graph(rows, k1=8, k2=3, max_distance=kind(number))
            for kind in (float, np.float32, np.float64)
        ]
        assert {graph.nnz for graph in graphs} == {int((whole.data < bound).sum())}
