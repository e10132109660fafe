# SPDX-License-Identifier: Apache-2.0
"""Evaluation and re-ranking by several processes give the figures of one, to the last digit."""

import dataclasses

import numpy as np
import pytest

from ppcls_ise.metrics import ReIDMetric, evaluate_rank, rank
from ppcls_ise.metrics.re_ranking import re_ranking
from tests.emulated_processes import together

QUERIES, GALLERY = 151, 390


def sides():
    rng = np.random.default_rng(2)
    pids = rng.integers(0, 60, QUERIES + GALLERY)
    features = rng.normal(size=(60, 24))[pids] + 1.3 * rng.normal(size=(len(pids), 24))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    features[rng.integers(0, len(pids), 40)] = features[3]  # copies tie
    order, cameras = rng.permutation(len(pids)), rng.integers(0, 3, len(pids))
    query, gallery = order[:QUERIES], order[QUERIES:]
    return tuple((features[rows], pids[rows], cameras[rows]) for rows in (query, gallery))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(rank, "_LARGEST_BLOCK", 13)
    monkeypatch.setattr(rank, "_LEAST_BLOCK", 13)


@pytest.mark.parametrize("size", [2, 3, 14])
@pytest.mark.parametrize("again", [False, True], ids=["plain", "re-ranked"])
def test_figures(size, again):
    metric = ReIDMetric(re_ranking=again, k1=8, k2=3)
    expected = metric(*sides())
    assert 0.1 < expected.mAP < 0.99
    for found in together(size, lambda processes: metric(*sides(), processes=processes)):
        for field in dataclasses.fields(expected.ranks):
            np.testing.assert_array_equal(
                getattr(found.ranks, field.name), getattr(expected.ranks, field.name)
            )


def test_re_ranked_distances_are_shared_out():
    (query, *_), (gallery, *_) = sides()
    expected = np.concatenate(list(re_ranking(query, gallery, k1=8, k2=3)))
    parts = together(
        3,
        lambda processes: np.concatenate(
            list(re_ranking(query, gallery, k1=8, k2=3, processes=processes))
        ),
    )
    assert [len(part) for part in parts] == [52, 52, 47]
    assert np.concatenate(parts).tobytes() == expected.tobytes()


def test_a_given_matrix_is_shared_out_too():
    query, gallery = sides()
    distances = np.random.default_rng(0).random((QUERIES, GALLERY))
    labels = (query[1], gallery[1], query[2], gallery[2])
    expected = evaluate_rank(None, None, *labels, distmat=distances)
    for found in together(
        2,
        lambda each: evaluate_rank(None, None, *labels, distmat=distances, processes=each),
    ):
        assert found.mAP == expected.mAP
