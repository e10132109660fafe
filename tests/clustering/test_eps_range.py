# SPDX-License-Identifier: Apache-2.0
"""A range of eps from one graph against one clustering per eps, and the recommendation."""

import itertools
import math

import numpy as np
import pytest

from ppcls_ise.clustering import generate_pseudo_labels, jaccard_graph
from ppcls_ise.clustering.eps_range import DEFAULT_EPS, EpsPoint, eps_range, recommend
from ppcls_ise.clustering.tracklets import one_label_per_tracklet, tracklet_array
from ppcls_ise.metrics import cluster_quality


def people(identities, images, noise, seed=0, dim=64):
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(identities), images)
    rows = rng.normal(size=(identities, dim))[pids] + noise * rng.normal(size=(len(pids), dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), pids


def graph_of(features, **options):
    highest = np.nextafter(np.float32(max(DEFAULT_EPS)), np.float32(1))
    return jaccard_graph(features, max_distance=float(highest), **options)


def same_pairs_index(first, second):
    """Adjusted Rand index by counting pairs of images that have a cluster in both."""
    rows = np.flatnonzero((first >= 0) & (second >= 0))
    together = [
        (first[a] == first[b], second[a] == second[b]) for a, b in itertools.combinations(rows, 2)
    ]
    both = sum(x and y for x, y in together)
    one, other = (sum(pair[side] for pair in together) for side in (0, 1))
    chance = one * other / len(together)
    return (both - chance) / ((one + other) / 2 - chance)


@pytest.mark.parametrize("cameras", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_eps_gives_the_pseudo_labels_of_that_eps(seed, cameras):
    features, _ = people(25, 10, 1.4, seed)
    options = {"camera_ids": np.arange(250) % 3} if cameras else {"k1": 12, "k2": 6}
    result = eps_range(graph_of(features, **options))
    assert [point.eps for point in result.points] == list(DEFAULT_EPS)
    before = None
    for point in result.points:
        labels = generate_pseudo_labels(features, point.eps, **options)
        assert point.num_clusters == labels.num_clusters
        assert point.outlier_share == labels.num_outliers / 250
        assert (point.largest, point.median_size) == (labels.largest, labels.median_size)
        if before is not None and ((before >= 0) & (labels.labels >= 0)).any():
            expected = same_pairs_index(before, labels.labels)
            assert point.stability == pytest.approx(expected, abs=1e-9)
        else:
            assert math.isnan(point.stability)
        before = labels.labels


@pytest.mark.parametrize("must_link", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_with_tracklets_their_labels_and_not_the_frames_are_judged(seed, must_link):
    """Against the pseudo-labels of each eps, and pairs of tracklets counted one by one."""
    features, _ = people(20, 12, 1.2, seed)
    ids = np.arange(240) // 4
    ids[7::31] = -1
    options = {"tracklet_ids": ids}
    plain = {"must_link": False, "whiten": False}
    tracklets = tracklet_array(ids, 240)
    free = np.array([0, 9])
    result = eps_range(
        graph_of(features, **options), tracklets=tracklets, free=free, must_link=must_link
    )
    before = None
    for point in result.points:
        own = generate_pseudo_labels(features, point.eps, **plain, **options).labels
        voted = one_label_per_tracklet(own, tracklets, free)
        used = voted if must_link else own
        assert point.num_clusters == len(set(used.tolist()) - {-1})
        assert point.outlier_share == np.mean(used < 0)
        judged = np.array([voted[tracklets == t][0] for t in range(tracklets.max() + 1)])[
            [t for t in range(tracklets.max() + 1) if t not in free]
        ]
        if before is not None and ((before >= 0) & (judged >= 0)).any():
            expected = same_pairs_index(before, judged)
            assert point.stability == pytest.approx(expected, abs=1e-9)
        before = judged


@pytest.mark.parametrize(("images", "noise"), [(12, 1.6), (12, 1.3), (30, 1.3), (60, 1.2)])
def test_the_recommendation_is_close_to_the_best_eps(images, noise):
    features, pids = people(800 // images, images, noise, seed=images, dim=128)
    result = eps_range(graph_of(features, k1=20, k2=6))
    quality = {
        eps: cluster_quality(generate_pseudo_labels(features, eps, k1=20).labels, pids).ari
        for eps in DEFAULT_EPS
    }
    assert quality[result.recommended] > max(quality.values()) - 0.05
    assert min(quality.values()) < max(quality.values()) - 0.2  # the choice matters here


def point(eps, stability=1.0, outliers=0.1, clusters=20, largest=0.1):
    return EpsPoint(eps, clusters, outliers, largest, round(1000 * largest), 9.0, stability)


def test_the_rule_by_hand():
    falling = [point(0.3, math.nan, 0.5), point(0.4, 0.9, 0.3), point(0.5, 1.0, 0.2)]
    merged = [point(0.6, 0.4, 0.1), point(0.7, 1.0, 0.0, largest=0.9)]
    result = recommend(falling + merged)
    assert (result.recommended, result.plateau) == (0.5, (0.3, 0.5))
    flat = [point(eps) for eps in (0.3, 0.4, 0.5, 0.6)]
    assert recommend(flat).recommended == 0.4
    assert "nothing was tried" in recommend(flat).reason
    # Pieces that still join at small eps are no reason to stay there.
    pieces = [point(0.2, math.nan), point(0.3), point(0.4), point(0.5, 0.5), point(0.6, 0.9)]
    assert recommend(pieces).plateau == (0.5, 0.6)
    mostly_outliers = [point(0.5, math.nan, 0.8), point(0.6, 1.0, 0.7)]
    assert "Most images have no cluster yet" in recommend(mostly_outliers).reason


def test_without_a_usable_range_there_is_a_reason_instead():
    unstable = [point(0.3, math.nan), point(0.4, 0.2), point(0.5, 0.3)]
    assert recommend(unstable).recommended is None
    assert "change at every step" in recommend(unstable).reason
    copies = np.tile(people(1, 1, 0.0)[0], (40, 1))
    for features, words in (
        (copies, "do not tell the images apart"),
        (copies[:1], "no cluster at any eps"),
        (copies[:0], "no cluster at any eps"),
        (np.zeros((30, 4), np.float32), "do not tell the images apart"),
        (np.eye(30, dtype=np.float32), "no cluster|do not tell"),
    ):
        result = eps_range(graph_of(features))
        assert result.recommended is None and result.plateau is None
        assert any(part in result.reason for part in words.split("|")), result.reason


def test_order_and_repetition_of_eps_do_not_matter():
    features, _ = people(10, 8, 1.0)
    graph = graph_of(features)
    # as text: NaN differs from itself
    assert str(eps_range(graph, [0.6, 0.4, 0.5, 0.4])) == str(eps_range(graph, [0.4, 0.5, 0.6]))
    with pytest.raises(ValueError, match="at least one eps"):
        eps_range(graph, [])
    with pytest.raises(ValueError, match="eps"):
        eps_range(graph, [0.4, math.nan])
