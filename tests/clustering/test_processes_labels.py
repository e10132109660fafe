# SPDX-License-Identifier: Apache-2.0
"""Jaccard graph and labels of several processes are those of one, to the byte."""

import numpy as np
import pytest

from ppcls_ise.clustering import generate_pseudo_labels, group_lists, jaccard_graph, overlap
from ppcls_ise.clustering.neighbors import search_recall
from tests.clustering.test_jaccard import clustered
from tests.emulated_processes import together


def features_of(count=230):
    features = clustered(count, 12, 9, seed=5).astype(np.float32)
    features[[7, 90, 91]] = features[[8, 20, 20]]  # copies
    features[[40, 41]] = 0
    return features


CAMERAS = np.arange(230) % 4
TRACKLETS = np.where(CAMERAS == 3, -1, (np.arange(230) // 28) * 4 + CAMERAS)
FORMS = {
    "plain": {"k1": 15, "k2": 4},
    "without expansion": {"k1": 15, "k2": 1},
    "cameras": {"camera_ids": CAMERAS},
    "tracklets": {"tracklet_ids": TRACKLETS},
    "both": {"camera_ids": CAMERAS, "tracklet_ids": TRACKLETS},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Every process gets several blocks of everything."""
    monkeypatch.setattr(overlap, "_BLOCK_WORK", 200)
    monkeypatch.setattr(overlap, "_BLOCK_ENTRIES", 200)
    monkeypatch.setattr(group_lists, "_BLOCK_PAIRS", 500)
    monkeypatch.setattr(group_lists, "_SMALL_WORK", 1000)


@pytest.mark.parametrize(
    ("form", "size"), [*((name, 2) for name in FORMS), ("plain", 3), ("both", 4)]
)
@pytest.mark.parametrize("bound", [0.6, 1.0])
def test_graphs(form, size, bound):
    features = features_of()
    expected = jaccard_graph(features, max_distance=bound, **FORMS[form])
    assert expected.nnz > 3 * len(features)
    first, *others = together(
        size,
        lambda processes: jaccard_graph(
            features, max_distance=bound, processes=processes, **FORMS[form]
        ),
    )
    for name in ("data", "indices", "indptr"):
        assert getattr(first, name).tobytes() == getattr(expected, name).tobytes(), name
    assert all(graph.nnz == 0 and graph.shape == expected.shape for graph in others)


@pytest.mark.parametrize("form", ["plain", "both"])
@pytest.mark.parametrize("count", [230, 2, 1, 0])
def test_labels(form, count):
    features = features_of()[:count]
    options = {
        name: value[:count] if isinstance(value, np.ndarray) else value
        for name, value in FORMS[form].items()
    }
    expected = generate_pseudo_labels(features, 0.6, 3, **options)
    assert expected.num_clusters > 3 or count < 230
    for found in together(
        3,
        lambda processes: generate_pseudo_labels(features, 0.6, 3, processes=processes, **options),
    ):
        assert found.labels.tobytes() == expected.labels.tobytes()
        assert found.centroids.tobytes() == expected.centroids.tobytes()
        np.testing.assert_array_equal(found.mixed_tracklets, expected.mixed_tracklets)


def test_recall():
    features = features_of()
    lists = np.tile(np.arange(10), (len(features), 1))
    expected = search_recall(features, lists)
    assert 0 < expected < 1
    assert (
        together(3, lambda each: search_recall(features, lists, processes=each)) == [expected] * 3
    )
