# SPDX-License-Identifier: Apache-2.0
"""Corrections of clusters: stable numbers, and splits that need no second look."""

import numpy as np
import pytest

from ppcls_ise.clustering import jaccard_graph
from ppcls_ise.clustering.cluster_split import split
from ppcls_ise.clustering.corrections import Correction, apply_corrections
from ppcls_ise.clustering.dbscan import dbscan
from ppcls_ise.errors import DataError


def people(unit_rows, sizes, spread=0.05, seed=0):
    """Rows of ``len(sizes)`` people, one after the other, and who they are."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rows = unit_rows(generator, len(sizes), 16)[truth]
    rows = rows + spread * unit_rows(generator, len(truth), 16)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), truth


def test_a_merged_pair_is_split_into_the_two(unit_rows):
    features, truth = people(unit_rows, [9, 14])
    for order in (np.arange(23), np.random.default_rng(1).permutation(23)):
        graph = jaccard_graph(features[order], 8, 3)
        parts, eps = split(features[order], graph, 0.9)
        assert 0 <= eps < 0.9
        # The larger person is part 0.
        assert parts.tolist() == (truth[order] == 0).astype(int).tolist()


@pytest.mark.parametrize("rows", [2, 3, 7, 40])
def test_whatever_never_falls_apart_is_cut_in_two(unit_rows, rows):
    features = people(unit_rows, [rows])[0]
    nothing = np.zeros((rows, rows), np.float32)  # all at distance 0: no eps parts them
    for members in (features, np.repeat(features[:1], rows, axis=0), np.zeros_like(features)):
        parts, eps = split(members, nothing, 0.5)
        assert np.isnan(eps) and set(parts.tolist()) == {0, 1}
        assert np.count_nonzero(parts == 0) >= rows / 2
        assert np.array_equal(parts, split(members, nothing, 0.5)[0])
    with pytest.raises(ValueError, match="one image"):
        split(features[:1], nothing[:1, :1], 0.5)


@pytest.fixture
def clusters(unit_rows):
    features, truth = people(unit_rows, [8, 12, 9, 10, 11])
    graph = jaccard_graph(features, 10, 3)
    labels = dbscan(graph, 0.6)
    assert np.array_equal(labels, truth)

    def apply(*corrections):
        given = [Correction(action, tuple(numbers)) for action, *numbers in corrections]
        return apply_corrections(labels, given, features=features, graph=graph, eps=0.6)

    return labels, apply


def test_numbers_stay(clusters):
    labels, apply = clusters
    assert np.array_equal(apply(), labels)
    merged = apply(("merge", 3, 1))
    assert np.array_equal(merged, np.where(labels == 3, 1, labels))
    # Split again: the larger half keeps 1, the other gets a number never used.
    again = apply(("merge", 3, 1), ("split", 1))
    assert np.array_equal(again, np.where(labels == 3, 5, labels))
    removed = apply(("remove", 0, 4))
    assert np.array_equal(removed, np.where(np.isin(labels, [0, 4]), -1, labels))
    # A number that was given once is not given again.
    twice = apply(("merge", 1, 3), ("split", 1), ("remove", 5), ("merge", 0, 2), ("split", 0))
    expected = labels.copy()
    expected[labels == 3] = -1
    expected[labels == 0] = 6  # person 2 is the larger
    expected[labels == 2] = 0
    assert np.array_equal(twice, expected)


@pytest.mark.parametrize(
    ("corrections", "words"),
    [
        ([("merge", 1, 9)], r"correction 1 \(merge 1 9\): there is no cluster 9: the highest"),
        ([("merge", 1)], "two clusters or more, each once"),
        ([("merge", 1, 1)], "two clusters or more, each once"),
        ([("split",)], "name a cluster"),
        ([("remove", -1)], "there is no cluster -1"),
        ([("join", 1, 2)], "one of merge, split, remove"),
        ([("merge", 1, 3), ("remove", 3)], "correction 2 .* correction 1 merged it into 1"),
        ([("remove", 2), ("split", 2)], "correction 1 removed it"),
    ],
)
def test_what_cannot_be_applied_is_named(clusters, corrections, words):
    with pytest.raises(DataError, match=words):
        clusters[1](*corrections)
