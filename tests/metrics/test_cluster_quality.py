# SPDX-License-Identifier: Apache-2.0
"""Cluster quality against counts over all pairs and against hand-made cases."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ppcls_ise.metrics import cluster_quality, label_stability


def pair_oracle(labels, pids):
    together = right = belong = 0
    for a, b in itertools.combinations(range(len(labels)), 2):
        same = labels[a] == labels[b] and labels[a] >= 0
        together += same
        belong += pids[a] == pids[b]
        right += same and pids[a] == pids[b]
    precision, recall = right / together, right / belong
    return precision, recall, 2 * precision * recall / (precision + recall)


def nmi_oracle(first, second):
    def entropy(values):
        share = np.unique(values, return_counts=True)[1] / len(values)
        return -(share * np.log(share)).sum()

    joint = entropy(first * 1000 + second)
    return 2 * (entropy(first) + entropy(second) - joint) / (entropy(first) + entropy(second))


def ari_oracle(first, second):
    pairs = {name: 0 for name in ("both", "first", "second")}
    for a, b in itertools.combinations(range(len(first)), 2):
        pairs["first"] += first[a] == first[b]
        pairs["second"] += second[a] == second[b]
        pairs["both"] += first[a] == first[b] and second[a] == second[b]
    chance = pairs["first"] * pairs["second"] / math.comb(len(first), 2)
    return (pairs["both"] - chance) / ((pairs["first"] + pairs["second"]) / 2 - chance)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_counting_pairs(seed):
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, 6, 80)
    labels = np.where(rng.random(80) < 0.6, pids, rng.integers(-1, 6, 80))
    result = cluster_quality(labels, pids)
    expected = pair_oracle(labels, pids)
    assert (result.pair_precision, result.pair_recall, result.pair_f1) == pytest.approx(expected)
    alone = labels.copy()
    alone[labels < 0] = 100 + np.arange((labels < 0).sum())
    assert result.nmi == pytest.approx(nmi_oracle(alone, pids))
    assert result.ari == pytest.approx(ari_oracle(alone, pids))


def test_limit_cases():
    pids = np.array([1, 1, 2, 2])
    perfect = cluster_quality(np.array([5, 5, 0, 0]), pids)
    assert (perfect.nmi, perfect.ari, perfect.pair_f1) == pytest.approx((1, 1, 1))
    outliers = cluster_quality(np.full(4, -1), pids)
    assert (outliers.pair_precision, outliers.pair_recall, outliers.pair_f1) == (1, 0, 0)
    assert outliers.ari == pytest.approx(0)
    none = cluster_quality(np.array([], dtype=int), np.array([], dtype=int))
    assert math.isnan(none.nmi) and math.isnan(none.ari) and math.isnan(none.pair_f1)
    with pytest.raises(ValueError, match="alike"):
        cluster_quality(np.zeros(3, dtype=int), pids)


def test_labels_are_not_changed():
    labels = np.array([-1, 0, 0])
    cluster_quality(labels, np.array([1, 1, 1]))
    np.testing.assert_array_equal(labels, [-1, 0, 0])


def test_stability_counts_an_outlier_as_a_cluster_of_its_own():
    labels = np.array([0, 0, 0, 1, 1, -1, -1, -1])
    assert label_stability(labels, labels) == 1.0
    renamed = np.array([1, 1, 1, 0, 0, -1, -1, -1])
    assert label_stability(labels, renamed) == 1.0
    moved = np.array([0, 0, 1, 1, 1, -1, -1, 0])
    apart = [0, 0, 0, 1, 1, 5, 6, 7], [0, 0, 1, 1, 1, 5, 6, 0]
    assert label_stability(labels, moved) == pytest.approx(adjusted_rand_score(*apart))
    assert label_stability(np.full(4, -1), np.full(4, -1)) == 1.0
    assert np.isnan(label_stability(np.empty(0, int), np.empty(0, int)))
    with pytest.raises(ValueError, match="alike"):
        label_stability(labels, labels[:3])
