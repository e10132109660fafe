# SPDX-License-Identifier: Apache-2.0
"""Corrections of clusters: stable numbers, and splits that need no second look."""

import numpy as np
import pytest

from ppcls_ise.clustering import jaccard_graph
from ppcls_ise.clustering.cluster_split import split
from ppcls_ise.clustering.corrections import Correction, Corrector
from ppcls_ise.clustering.dbscan import dbscan
from ppcls_ise.data.correction_file import read_corrections, write_corrections
from ppcls_ise.errors import ConfigError, DataError


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
        # The larger person is part 0.
        assert split(features[order], graph, 0.9).tolist() == (truth[order] == 0).tolist()
    # Who is left out at the smaller eps goes where it is nearest.
    graph = jaccard_graph(features, 8, 3).tolil()
    graph[0, 1:] = graph[1:, 0] = 1
    assert split(features, graph.tocsr(), 0.9).tolist() == (truth == 0).tolist()


@pytest.mark.parametrize("rows", [2, 3, 7, 40])
def test_whatever_never_falls_apart_is_cut_in_two(unit_rows, rows):
    features = people(unit_rows, [rows])[0]
    nothing = np.zeros((rows, rows), np.float32)  # all at distance 0: no eps parts them
    for members in (features, np.repeat(features[:1], rows, axis=0), np.zeros_like(features)):
        parts = split(members, nothing, 0.5)
        assert set(parts.tolist()) == {0, 1} and np.count_nonzero(parts == 0) >= rows / 2
        assert np.array_equal(parts, split(members, nothing, 0.5))
    with pytest.raises(ValueError, match="one image"):
        split(features[:1], nothing[:1, :1], 0.5)


@pytest.fixture
def clusters(unit_rows):
    features, truth = people(unit_rows, [8, 12, 9, 10, 11])
    graph = jaccard_graph(features, 10, 3)
    labels = dbscan(graph, 0.6)
    assert np.array_equal(labels, truth)
    paths = [f"{row}.jpg" for row in range(len(labels))]
    corrector = Corrector(labels, paths, features, graph, 0.6)
    return labels, lambda *corrections: corrector([Correction(*given) for given in corrections])


def test_numbers_stay(clusters):
    labels, apply = clusters
    assert np.array_equal(apply(), labels)
    merged = apply(("merge", 3, 1))
    assert np.array_equal(merged, np.where(labels == 3, 1, labels))
    # Transitive, in any order.
    three = np.where(np.isin(labels, [3, 4]), 1, labels)
    assert np.array_equal(apply(("merge", 3, 1), ("merge", 3, 4)), three)
    assert np.array_equal(apply(("merge", 3, 4), ("merge", 4, 1), ("merge", 1, 3)), three)
    # Split again: the larger half keeps 1, the other gets a number never used.
    again = apply(("merge", 3, 1), ("split", 1))
    assert np.array_equal(again, np.where(labels == 3, 5, labels))
    removed = apply(("remove", 0), ("remove", 4))
    assert np.array_equal(removed, np.where(np.isin(labels, [0, 4]), -1, labels))
    # A number that was given once is not given again.
    twice = apply(("merge", 1, 3), ("split", 1), ("remove", 5), ("merge", 0, 2), ("split", 0))
    expected = labels.copy()
    expected[labels == 3] = -1
    expected[labels == 0] = 6  # person 2 is the larger
    expected[labels == 2] = 0
    assert np.array_equal(twice, expected)
    # One image, and all of a cluster one by one.
    expected = labels.copy()
    expected[8] = -1
    assert np.array_equal(apply(("remove", 1, None, "8.jpg")), expected)
    expected = np.where(labels == 0, -1, labels)
    assert np.array_equal(apply(*[("remove", 0, None, f"{i}.jpg") for i in range(8)]), expected)


@pytest.mark.parametrize(
    ("corrections", "words"),
    [
        ([("merge", 1, 9)], r"correction 1 \(merge 1 with 9\): there is no cluster 9: .* never"),
        ([("merge", 1)], "merge .of two clusters"),
        ([("remove", -1)], "there is no cluster -1"),
        ([("join", 1, 2)], "there are merge"),
        ([("remove", 2), ("split", 2)], r"correction 2 .*no cluster 2: correction 1 removed it"),
        ([("remove", 2, None, "0.jpg")], "that image is not in the cluster"),
        (
            [*[("remove", 0, None, f"{i}.jpg") for i in range(7)], ("split", 0)],
            "8 .split 0.: it has one image",
        ),
    ],
)
def test_what_cannot_be_applied_is_named(clusters, corrections, words):
    with pytest.raises(DataError, match=words):
        clusters[1](*corrections)


def test_a_file_says_what_the_page_exported(tmp_path):
    file = tmp_path / "c.csv"
    file.write_bytes(
        b'action,cluster,with,path\r\nmerge,7,3,\r\nsplit,5,,\r\nremove,4,,"./=a,b"\r\n'
    )
    found = read_corrections(file)
    assert found == [
        Correction("merge", 7, 3),
        Correction("split", 5),
        Correction("remove", 4, None, "=a,b"),
    ]
    paths = ["/a/\udcff\u2028.jpg", "./=x", 'a "b"\n.png']
    found += [Correction("remove", 1, None, path) for path in paths if path != "./=x"]
    write_corrections(file, found)
    assert read_corrections(file) == found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("join,1,2,", "line 2: the action is merge or split or remove, not 'join'"),
        ("merge,1,,", "a cluster is a whole number, not ''"),
        ("merge,1,1,", "cluster 1 with itself"),
        ("split,x,,", "whole number, not 'x'"),
        ("split,1,2,", "split has no with"),
        ("split,1,,a", "split has no path"),
        ("split,1", "line 2 has 2 cells"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, line, words):
    file = tmp_path / "c.csv"
    file.write_text(f"action,cluster,with,path\n{line}\n")
    with pytest.raises(DataError, match=words):
        read_corrections(file)
    with pytest.raises(ConfigError, match="no file"):
        read_corrections(tmp_path / "none")
