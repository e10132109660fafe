# SPDX-License-Identifier: Apache-2.0
"""Rules for tracklets against slow derivations, and pseudo-labels with tracklets."""

import numpy as np
import pytest

from ppcls_ise.clustering import dbscan, generate_pseudo_labels, jaccard_graph
from ppcls_ise.clustering.tracklets import (
    mixed_tracklets,
    one_label_per_tracklet,
    tracklet_array,
)


def unit(rows):
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype("f4")


def walks(people, tracklets_each, frames, seed, noise=0.1):
    """Features [N, 24], tracklets [N] and people [N]: centers, walks around them, frames."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(people, 24))
    person = np.repeat(np.arange(people), tracklets_each)
    middle = centers[person] + 0.25 * rng.normal(size=(len(person), 24))
    tracklets = np.repeat(np.arange(len(person)), frames)
    rows = middle[tracklets] + noise * rng.normal(size=(len(tracklets), 24))
    return unit(rows), tracklets, person[tracklets]


def vote_oracle(labels, tracklets, free=(), alone=None):
    result = list(labels)
    fresh = max([*labels, -1]) + 1
    for name in sorted(set(tracklets)):
        rows = [i for i in range(len(labels)) if tracklets[i] == name]
        votes = [labels[i] for i in rows if labels[i] >= 0]
        if name in free:
            continue
        best = -1
        if votes:
            best = min(set(votes), key=lambda label: (-votes.count(label), label))
        elif alone is not None and len(rows) >= alone:
            best, fresh = fresh, fresh + 1
        for i in rows:
            result[i] = best
    left = sorted({label for label in result if label >= 0})
    return [left.index(label) if label >= 0 else -1 for label in result]


@pytest.mark.parametrize("alone", [None, 1, 5])
@pytest.mark.parametrize("seed", range(6))
def test_one_label_per_tracklet(seed, alone):
    rng = np.random.default_rng(seed)
    tracklets = np.unique(rng.integers(0, 25, 140), return_inverse=True)[1]
    labels = rng.integers(-1 - 4 * seed, 9, 140).clip(-1)
    labels[np.isin(tracklets, rng.permutation(25)[: 2 * seed])] = -1
    free = rng.permutation(25)[:seed]
    expected = vote_oracle(labels.tolist(), tracklets.tolist(), set(free.tolist()), alone)
    assert one_label_per_tracklet(labels, tracklets, free, alone=alone).tolist() == expected


@pytest.mark.parametrize("labels", [[], [-1, -1, -1], [-1, 0, -1]])
def test_one_label_per_tracklet_at_the_edges(labels):
    labels = np.array(labels, dtype=np.int64)
    tracklets = np.zeros(len(labels), dtype=np.int64)
    expected = [0] * len(labels) if 0 in labels else [-1] * len(labels)
    assert one_label_per_tracklet(labels, tracklets).tolist() == expected
    alone = one_label_per_tracklet(labels, tracklets, alone=3)
    assert alone.tolist() == [0] * len(labels)


def mixed_oracle(features, tracklets):
    runs = [
        [features[i].astype(float) for i in range(len(tracklets)) if tracklets[i] == name]
        for name in range(max(tracklets) + 1)
    ]
    jumps = {}
    for name, rows in enumerate(runs):
        least = max(2, int(0.2 * len(rows)))
        if len(rows) >= 4:
            jumps[name] = max(
                float(((np.mean(rows[:cut], axis=0) - np.mean(rows[cut:], axis=0)) ** 2).sum())
                for cut in range(least, len(rows) - least + 1)
            )
    means = [np.mean(rows, axis=0) for rows in runs]
    gaps = []
    for name, mean in enumerate(means):
        others = [one for other, one in enumerate(means) if other != name]
        cosines = [mean @ one / np.linalg.norm(one) for one in others]
        gaps.append(((mean - others[int(np.argmax(cosines))]) ** 2).sum())
    lower, upper = np.percentile(list(jumps.values()), [25, 75])
    bound = max(upper + 3 * (upper - lower), np.median(gaps))
    return [name for name, jump in jumps.items() if jump > bound]


@pytest.mark.parametrize("seed", range(4))
def test_mixed_tracklets_follow_their_definition(seed):
    rng = np.random.default_rng(seed)
    features, tracklets, _ = walks(12, 3, 9, seed, noise=0.05)
    for place in range(seed * 90 + 4, seed * 90 + 9):
        features[place] = features[place - 60]  # the tracker slipped
    order = np.sort(rng.permutation(len(features))[:260])  # some tracklets get short
    features = features[order]
    tracklets = np.unique(tracklets[order], return_inverse=True)[1]
    expected = mixed_oracle(features, tracklets.tolist())
    assert mixed_tracklets(features, tracklets).tolist() == expected
    if seed:
        assert expected


def test_a_slip_is_found_and_an_occlusion_is_not():
    features, tracklets, _ = walks(10, 3, 12, seed=3)
    assert not len(mixed_tracklets(features, tracklets))
    slipped = features.copy()
    slipped[36 * 4 + 5 : 36 * 4 + 12] = features[36 * 7 + 5 : 36 * 7 + 12]  # tracklet 12
    assert mixed_tracklets(slipped, tracklets).tolist() == [12]
    hidden = features.copy()
    hidden[36 * 4 + 5 : 36 * 4 + 6] = unit(np.ones((1, 24)))  # one frame in between
    assert not len(mixed_tracklets(hidden, tracklets))


def test_nothing_is_mixed_where_little_is_known():
    features, tracklets, _ = walks(2, 3, 12, seed=3)
    features[6:12] = features[48:54]
    assert not len(mixed_tracklets(features, tracklets))  # six tracklets have no quartiles
    still = np.repeat(features[::12], 12, axis=0).repeat(3, axis=0)
    assert not len(mixed_tracklets(still, np.repeat(np.arange(18), 12)))
    assert not len(mixed_tracklets(np.zeros((0, 4), "f4"), np.zeros(0, dtype=np.int64)))


def test_labels_are_those_of_graph_clusters_and_vote():
    features, tracklets, people = walks(8, 3, 10, seed=1, noise=0.2)
    features[200:] = features[:40]  # copies in other tracklets
    features[3] = 0
    result = generate_pseudo_labels(features, 0.4, tracklet_ids=tracklets + 5)
    graph = jaccard_graph(features, tracklet_ids=tracklets + 5)
    expected = vote_oracle(dbscan(graph, 0.4).tolist(), tracklets.tolist(), alone=4)
    assert result.labels.tolist() == expected
    assert result.num_clusters == max(expected) + 1 == len(result.centroids)
    free = generate_pseudo_labels(features, 0.4, tracklet_ids=tracklets, must_link=False)
    assert free.labels.tolist() == dbscan(graph, 0.4).tolist()


def test_frames_of_a_mixed_tracklet_keep_their_own_labels():
    features, tracklets, people = walks(10, 3, 12, seed=3)
    features[36 * 4 + 5 : 36 * 4 + 12] = features[36 * 7 + 5 : 36 * 7 + 12]
    result = generate_pseudo_labels(features, 0.4, tracklet_ids=tracklets * 10)
    assert result.mixed_tracklets.tolist() == [120] and result.mixed_tracklets.dtype == np.int64
    first, later = result.labels[36 * 4], result.labels[36 * 4 + 8]
    assert first != later
    assert first == result.labels[36 * 4 + 20] and later == result.labels[36 * 7 + 8]
    others = tracklets != 12
    kept = np.unique(np.stack([tracklets, result.labels])[:, others], axis=1)
    assert kept.shape[1] == 29  # one label each
    # The result does not depend on the order of the ids.
    renamed = generate_pseudo_labels(features, 0.4, tracklet_ids=1000 - tracklets)
    np.testing.assert_array_equal(renamed.labels, result.labels)
    assert renamed.mixed_tracklets.tolist() == [988]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_images(count):
    features = unit(np.random.default_rng(0).normal(size=(count, 6)))
    result = generate_pseudo_labels(features, 0.5, tracklet_ids=np.zeros(count, dtype=np.int64))
    assert result.labels.tolist() == [-1] * count and not len(result.mixed_tracklets)


def test_images_in_no_tracklet_vote_for_themselves():
    features, tracklets, _ = walks(8, 3, 10, seed=1)
    ids = np.where(tracklets % 2, -1, tracklets)
    result = generate_pseudo_labels(features, 0.4, tracklet_ids=ids)
    plain = generate_pseudo_labels(features, 0.4, tracklet_ids=ids, must_link=False)
    alone = ids < 0
    same = plain.labels[alone] >= 0
    np.testing.assert_array_equal(result.labels[alone] >= 0, same)
    numbers = tracklet_array(ids, len(ids))
    assert len(np.unique(numbers)) == numbers.max() + 1 == 12 + alone.sum()


def test_approximate_search_is_refused():
    with pytest.raises(ValueError, match="tracklet_aware"):
        generate_pseudo_labels(
            np.eye(4, dtype="f4"), 0.4, tracklet_ids=np.arange(4), approximate=True
        )
