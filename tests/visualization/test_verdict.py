# SPDX-License-Identifier: Apache-2.0
"""What the verdict says of runs that went wrong in a known way."""

import numpy as np
import pytest

from ppcls_ise.clustering.doubts import cluster_table
from ppcls_ise.clustering.eps_range import EpsPoint, EpsRange
from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.clustering.sample_graph import GraphSettings
from ppcls_ise.visualization.verdict import verdict

SETTINGS = GraphSettings(0.5)


def judge(labels, *, eps=None, history=(), settings=SETTINGS, spread=0.2, **ids):
    labels = np.asarray(labels)
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((max(labels.max(initial=0) + 1, 1), 16))
    features = directions[labels] + spread * generator.standard_normal((len(labels), 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    paths = [f"{i}.jpg" for i in range(len(labels))]
    record = ClusteringRecord.describe(paths, features.astype(np.float32), labels, **ids)
    return verdict(record, cluster_table(record), eps, settings, history)


def wrong(found):
    return {remark.title for remark in found.remarks if remark.level in ("bad", "warn")}


def plateau(low, high, recommended):
    points = tuple(EpsPoint(e, 9, 0.1, 0.1, 9, 9.0, 0.9) for e in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7))
    return EpsRange(points, (low, high), recommended, "because")


GOOD = np.repeat(np.arange(10), 9)


def test_a_good_run_is_called_good():
    history = [{"epoch": 1.0, "stability": None}, {"epoch": 2.0, "stability": 0.97}]
    found = judge(GOOD, eps=plateau(0.3, 0.7, 0.5), history=history)
    assert wrong(found) == set()
    assert "Nothing looks wrong" in found.headline and "10 clusters in 90 images" in found.headline
    assert {"labels have settled", "eps is within its plateau"} <= {r.title for r in found.remarks}


@pytest.mark.parametrize(
    ("labels", "title", "key"),
    [
        ([-1] * 40, "no cluster at all", "Clustering.eps"),
        ([0, 0, 1, 1, *[-1] * 200], "almost all images are outliers", "Clustering.eps"),
        ([*GOOD, *[-1] * 90], "many images have no cluster", "Clustering.min_samples"),
        ([*[0] * 60, *[1] * 20, *[2] * 20], "one cluster holds most images", "learning_rate"),
        ([*GOOD, *[10] * 60], "one cluster is far larger than the others", "Clustering.eps"),
    ],
)
def test_collapse_and_scatter(labels, title, key):
    found = judge(labels)
    assert title in wrong(found) and title in found.headline
    (remark,) = [remark for remark in found.remarks if remark.title == title]
    assert key in remark.advice and remark.evidence


def test_clusters_that_are_tracklets():
    tracklets = np.repeat(np.arange(20), 9)
    labels = tracklets.copy()
    labels[-9 * 5 :] = -1  # 15 clusters of a tracklet each, of 20 tracklets
    found = judge(labels, tracklets=tracklets)
    assert "clusters are tracklets rather than people" in wrong(found)
    assert "clusters are tracklets rather than people" not in wrong(
        judge(GOOD, tracklets=np.arange(90) // 3)
    )


def test_clusters_that_stay_in_a_camera():
    assert "clusters hardly cross cameras" in wrong(judge(GOOD, camids=GOOD % 3))
    assert wrong(judge(GOOD, camids=np.arange(90) % 3)) == set()
    assert wrong(judge(GOOD, camids=np.zeros(90, int))) == set()  # there is but one


@pytest.mark.parametrize(
    ("eps", "words"),
    [
        (0.7, "above its plateau"),
        (0.2, "below its plateau"),
        (0.6, "at the upper edge"),
        (0.3, "at the lower edge"),
        (0.45, None),
    ],
)
def test_eps_and_its_plateau(eps, words):
    found = judge(GOOD, eps=plateau(0.3, 0.6, 0.45), settings=GraphSettings(eps))
    titles = [title for title in wrong(found) if words and words in title]
    assert bool(titles) == bool(words) and (words or wrong(found) == set())


def test_without_a_plateau():
    points = (EpsPoint(0.2, 9, 0.1, 0.1, 9, 9.0, 0.1),)
    found = judge(GOOD, eps=EpsRange(points, None, None, "the clusters change"))
    assert "no eps gives stable clusters" in wrong(found)


def test_labels_that_do_not_settle_and_weights_that_got_worse():
    history = [
        {"epoch": 1.0, "stability": None, "mAP": 0.5},
        {"epoch": 2.0, "stability": 0.4, "mAP": 0.3},
    ]
    titles = wrong(judge(GOOD, history=history))
    assert titles == {
        "labels still change from epoch to epoch",
        "the last weights are not the best",
    }


def test_known_identities():
    assert "clusters mix people, by the file names" in wrong(judge(GOOD, pids=np.arange(90)))
    assert "people are in pieces, by the file names" in wrong(judge(GOOD, pids=GOOD // 5))
    assert wrong(judge(GOOD, pids=GOOD)) == set()
