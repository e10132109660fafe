# SPDX-License-Identifier: Apache-2.0
"""The threshold against counting pair by pair."""

from itertools import combinations

import numpy as np
import pytest

from ppcls_ise.errors import DataError
from ppcls_ise.retrieval.calibration import Calibration, calibrate, shown_score


def people(count, images, noise, seed=0, dim=16):
    generator = np.random.default_rng(seed)
    centers = generator.standard_normal((count, dim))
    rows = np.repeat(centers, images, axis=0) + noise * generator.standard_normal(
        (count * images, dim)
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), np.repeat(np.arange(count), images)


def pairs_of(rows, labels, cameras, tracklets=None):
    """Scores of the pairs of one person, and of different people."""
    scores = {True: [], False: []}
    for i, j in combinations(range(len(rows)), 2):
        if -1 in (labels[i], labels[j]) or (cameras is not None and cameras[i] == cameras[j]):
            continue
        if tracklets is not None and tracklets[i] == tracklets[j] and tracklets[i] >= 0:
            continue
        scores[bool(labels[i] == labels[j])].append(np.float32(rows[i] @ rows[j]))
    return scores[True], scores[False]


@pytest.mark.parametrize("with_tracklets", [False, True])
@pytest.mark.parametrize("with_cameras", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.2, 1.0])
def test_rates_are_those_of_the_pairs(with_cameras, with_tracklets, rate):
    rows, labels = people(12, 4, noise=0.7)
    labels[::7] = -1
    cameras = np.arange(len(rows)) % 3 if with_cameras else None
    tracklets = np.arange(len(rows)) // 2 % 9 - 1 if with_tracklets else None
    result = calibrate(rows, labels, cameras=cameras, tracklets=tracklets, max_false_accept=rate)
    same, different = pairs_of(rows, labels, cameras, tracklets)
    assert (result.same_pairs, result.different_pairs) == (len(same), len(different))

    def share(scores, threshold):
        return sum(score >= np.float32(threshold) for score in scores) / len(scores)

    thresholds = [step / 1000 for step in range(-1000, 1002)]
    lowest = next(t for t in thresholds if share(different, t) <= rate)
    assert result.threshold == pytest.approx(lowest, abs=0.0011)  # rounding of another product
    for threshold, accept, reject in result.rows:
        assert accept == pytest.approx(share(different, threshold), abs=2.5 / len(different))
        assert reject == pytest.approx(1 - share(same, threshold), abs=2.5 / len(same))
    assert result.false_accept <= rate
    assert (result.threshold, result.false_accept, result.false_reject) in result.rows
    assert "<- chosen" in result.table() and Calibration.from_json(result.to_json()) == result


def test_equal_scores_on_a_threshold_count_as_accepted():
    rows = np.array([[1, 0], [1, 0], [0.6, 0.8]], np.float32)
    result = calibrate(rows, [0, 0, 1])
    assert (result.threshold, result.false_accept, result.false_reject) == (0.601, 0.0, 0.0)
    assert result.accepts(0.601) and result.accepts(np.float32(0.601))
    assert not result.accepts(np.float32(0.6))
    assert result.verdict(0.601).startswith("score 0.601 reaches 0.601: same person")
    assert result.verdict(0.60099).startswith("score 0.600 is below 0.601: not shown")
    assert "none of 2 pairs" in result.verdict(1.0)


def test_identical_people_leave_nothing_to_accept():
    result = calibrate(np.ones((4, 1), np.float32), [0, 0, 1, 1])
    assert result.threshold == 1.001 and result.false_reject == 1.0
    assert not result.accepts(1.0)


@pytest.mark.parametrize(
    ("labels", "cameras", "words"),
    [
        ([0, 1, 2], None, "no pair of the same person"),
        ([0, 0, 0], None, "no pair of different people"),
        ([0, 0, 1], [1, 1, 2], "the same person from different cameras"),
        ([-1, -1, -1], None, "0 labeled"),
    ],
)
def test_nothing_to_calibrate_on(labels, cameras, words):
    with pytest.raises(DataError, match=words):
        calibrate(np.eye(3, dtype=np.float32), labels, cameras=cameras)
    with pytest.raises(DataError, match="share"):
        calibrate(np.eye(3, dtype=np.float32), [0, 0, 1], max_false_accept=3)


def test_pairs_of_one_tracklet_are_no_matches():
    rows = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], np.float32)
    labels = [0, 0, 0, 1]
    assert calibrate(rows, labels).same_pairs == 3
    assert calibrate(rows, labels, tracklets=[4, 4, 5, 5]).same_pairs == 2
    assert calibrate(rows, labels, tracklets=[4, 4, 5, 5]).different_pairs == 2
    assert calibrate(rows, labels, tracklets=[-1, -1, -1, -1]).same_pairs == 3
    with pytest.raises(DataError, match="same person in different tracklets"):
        calibrate(rows, labels, tracklets=[4, 4, 4, 5])
    with pytest.raises(DataError, match="as many tracklets"):
        calibrate(rows, labels, tracklets=[4, 4, 4])


def test_a_sentence_says_how_often_it_is_wrong():
    result = Calibration(0.64, 0.0099, 0.25, 5000, 300, "labels", ())
    assert result.verdict(0.71) == (
        "score 0.710 reaches 0.640: same person. At that threshold 1 in 101 pairs of different "
        "people were accepted too"
    )
    assert result.verdict(0.2).endswith("1 in 4 pairs of the same person were rejected too")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 5, np.nan, rows), "row 5 .* NaN"),
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 5, np.inf, rows), "row 5 .* Inf"),
        (lambda rows: rows[:, :0], r"\[N, D\]"),
        (lambda rows: 3 * rows, "row 0 has length 3"),
        (lambda rows: rows[:-1], "as many labels"),
    ],
)
def test_rows_that_are_no_features_choose_no_threshold(spoil, words):
    rows, labels = people(6, 3, noise=0.5)
    with pytest.raises(DataError, match=words):
        calibrate(spoil(rows), labels)


@pytest.mark.parametrize("score", [0.99999994, 1.0, 0.9994, 0.7, 0.6999, -0.12345678, -1.0, 0.0])
def test_more_decimals_never_read_as_more(score):
    short, long = shown_score(score), shown_score(score, 6)
    assert long.startswith(short) if score >= 0 else float(long) >= float(short)
    assert np.float32(float(long)) <= np.float32(score)
    assert abs(float(long) - score) <= 1.1e-6
