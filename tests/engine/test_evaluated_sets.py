# SPDX-License-Identifier: Apache-2.0
"""Tracklets of query and gallery, which count their own, are the same if name and camera are."""

import numpy as np
import pytest

from ppcls_ise.data import UnlabeledFolder, number_alike
from ppcls_ise.engine.evaluated_sets import known_of_both
from ppcls_ise.metrics import ReIDMetric, Side
from tests.engine.test_engine import crops


def folder(root, names):
    made = crops(root / "made", len(names))
    for path, name in zip(sorted(made.iterdir()), names, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(root / name)
    return root


@pytest.mark.parametrize("cameras", [True, False])
def test_tracklets_of_both_sides(tmp_path, cameras):
    """The number 7 occurs in one camera of the queries and in two of the gallery."""
    queries = ["a/cam2_track7_1.png", "b/cam1_track9_1.png"]
    gallery = ["a/cam1_track7_1.png", "a/cam2_track7_2.png", "a/cam2_track8_1.png"]
    gallery += ["b/cam1_track9_2.png", "b/cam3_track9_1.png", "b/cam3_track10_1.png"]
    options = {"identity_pattern": "^(.)/", "tracklet_pattern": r"(track\d+)"}
    if cameras:
        options = {"identity_pattern": "^(.)/"}
    sets = [
        UnlabeledFolder(str(folder(tmp_path / side, names)), **options)
        for side, names in (("q", queries), ("g", gallery))
    ]
    number_alike(*sets)
    query, others = known_of_both(*sets)
    same = query.tracklet_ids[:, None] == others.tracklet_ids[None]
    same_camera = [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    same_name = [[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]]
    expected = np.array(same_camera if cameras else same_name, bool)
    np.testing.assert_array_equal(same, expected[:, _order(sets[1], gallery)])
    rows = np.eye(8, dtype=np.float32)
    result = ReIDMetric()(Side(rows[:2], *query), Side(rows[2:], *others))
    assert result.protocol == ("cross_camera" if cameras else "cross_tracklet")


def _order(dataset, names):
    return [names.index("/".join(path.split("/")[-2:])) for path in dataset.images]


def test_what_is_unknown_stays_unknown(tmp_path):
    plain = UnlabeledFolder(str(crops(tmp_path / "plain", 3)))
    known = UnlabeledFolder(str(folder(tmp_path / "known", ["x_track1_1.png"])))
    assert known_of_both(plain, known)[0] == (None, None, None)
    assert known_of_both(plain, known)[1].tracklet_ids.tolist() == [0]
