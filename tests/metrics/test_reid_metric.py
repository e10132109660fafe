# SPDX-License-Identifier: Apache-2.0
"""Which matches the metric of a config leaves out."""

import numpy as np
import pytest

from ppcls_ise.errors import ConfigError, DataError
from ppcls_ise.metrics import Labels, ReIDMetric, Side, evaluate_rank

PIDS = np.array([0, 0, 1, 1, 2, 2])
CAMERAS = np.array([0, 1, 0, 1, 0, 0])
TRACKLETS = np.array([0, 1, 2, 2, -1, 3])


def sides(cameras, tracklets):
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    return (
        Side(rows[:6], PIDS, cameras, tracklets),
        Side(rows[6:], PIDS, cameras, tracklets),
    )


@pytest.mark.parametrize(
    ("protocol", "cameras", "tracklets", "used", "by_camera", "by_tracklet"),
    [
        ("auto", CAMERAS, None, "cross_camera", True, False),
        ("auto", CAMERAS, TRACKLETS, "cross_camera", True, True),
        ("auto", None, TRACKLETS, "cross_tracklet", False, True),
        ("cross_camera", CAMERAS, None, "cross_camera", True, False),
        ("cross_tracklet", CAMERAS, TRACKLETS, "cross_tracklet", False, True),
        ("all", CAMERAS, TRACKLETS, "all", False, False),
        ("all", None, None, "all", False, False),
    ],
)
def test_protocols(protocol, cameras, tracklets, used, by_camera, by_tracklet):
    query, gallery = sides(cameras, tracklets)
    result = ReIDMetric(protocol=protocol, topk=[1])(query, gallery)
    assert result.protocol == used
    expected = evaluate_rank(
        query.features,
        gallery.features,
        PIDS,
        PIDS,
        CAMERAS,
        CAMERAS,
        protocol="cross_camera" if by_camera else "all",
        query_tracklets=TRACKLETS if by_tracklet else None,
        gallery_tracklets=TRACKLETS if by_tracklet else None,
    )
    np.testing.assert_array_equal(result.ranks.average_precision, expected.average_precision)
    skipped = result.describe_skipped([f"{i}.jpg" for i in range(6)])
    assert bool(skipped) == bool(len(expected.skipped_queries))
    words = {"cross_camera": "another camera", "cross_tracklet": "another tracklet"}
    assert not skipped or words[used] in skipped


@pytest.mark.parametrize(
    ("protocol", "cameras", "tracklets", "words"),
    [
        ("auto", None, None, "no camera numbers.*protocol=all"),
        ("cross_camera", None, None, "no camera numbers.*protocol=all"),
        ("cross_camera", None, TRACKLETS, "no camera numbers.*protocol=cross_tracklet"),
        ("cross_tracklet", CAMERAS, None, "in no tracklets.*protocol=all"),
    ],
)
def test_what_a_protocol_needs(protocol, cameras, tracklets, words):
    labels = Labels(PIDS, cameras, tracklets)
    with pytest.raises(DataError, match=words):
        ReIDMetric(protocol=protocol).check(labels, labels)
    with pytest.raises(DataError, match="no identities"):
        ReIDMetric(protocol=protocol).check(labels, Labels(None, cameras, tracklets))
    with pytest.raises(ConfigError, match="auto, cross_camera, cross_tracklet, all"):
        ReIDMetric(protocol="market")


def test_nothing_left_is_said():
    labels = (PIDS[:1], None, np.zeros(1, int))
    side = Side(np.ones((1, 2), np.float32), *labels)
    result = ReIDMetric()(side, side)
    with pytest.raises(DataError, match="same identity in another tracklet. Check"):
        result.require_valid_queries()
