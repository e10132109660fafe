# SPDX-License-Identifier: Apache-2.0
"""Tracklets from the data set to the labels, the log, the list of mixed ones and the states."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import ppcls_ise
from ppcls_ise.clustering import pseudo_labels
from ppcls_ise.clustering.tracklets import tracklet_array
from ppcls_ise.engine import clustering_callback
from ppcls_ise.engine.resume.state_files import read_state_file
from ppcls_ise.errors import ConfigError, DataError
from tests.conftest import lite_overrides
from tests.engine.resume.test_resume import latest, start, states
from tests.engine.test_engine import FOLDER, SMALL_NET, digest, engine_of, log_of


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """Frames of some thirty tracklets, named as in MARS."""
    from ppcls_ise.synthetic import make_tracklets

    out = tmp_path_factory.mktemp("tracklets") / "set"
    size = {"height": 32, "width": 16, "mean_length": 5}
    make_tracklets(out, 0, num_train_ids=12, num_test_ids=0, **size)
    return out / "bbox_train"


def overrides_of(root, output, **more) -> list[str]:
    more = {"Clustering__tracklet_eps": 0.5, "Clustering__min_samples": 2, **more}
    return [*lite_overrides(root, output, **more), *SMALL_NET]


def run(overrides, **options):
    return start(overrides, config=FOLDER, **options)


@pytest.fixture
def calls(monkeypatch):
    """What the engine asks of the clustering, and what it gets."""
    seen = []
    original = clustering_callback.generate_pseudo_labels

    def watched(*arguments, **options):
        result = original(*arguments, **options)
        seen.append((arguments, options, result))
        return result

    monkeypatch.setattr(clustering_callback, "generate_pseudo_labels", watched)
    return seen


def test_where_the_data_set_knows_tracklets_they_are_used(frames, tmp_path, calls):
    """An unreadable frame is left out, and the others of its tracklet stay what they are."""
    root = shutil.copytree(frames, tmp_path / "frames")
    victim = sorted(root.rglob("*.jpg"))[2]
    victim.write_bytes(victim.read_bytes()[:100])
    engine = run(overrides_of(root, tmp_path / "run", Global__epochs=1))
    dataset, result = engine.train_dataset, engine.clustering.result
    ((features, eps, min_samples), options, found) = calls[0]
    assert (eps, min_samples, options["must_link"], options["whiten"]) == (0.5, 2, True, True)
    assert {"k1_intra", "k1_inter", "k2_intra", "k2_inter"} <= set(options)
    assert "camera_ids" not in options  # camera_aware is False
    kept = np.array([path != str(victim) for path in dataset.images])
    np.testing.assert_array_equal(options["tracklet_ids"], dataset.tracklet_ids[kept])
    np.testing.assert_array_equal(result.labels[kept], found.labels)
    assert result.labels[~kept].tolist() == [-1] and len(features) == kept.sum()
    for tracklet in np.setdiff1d(dataset.tracklet_ids, result.mixed_tracklets):
        assert len(set(result.labels[kept & (dataset.tracklet_ids == tracklet)])) == 1
    log = log_of(tmp_path / "run")
    assert "eps 0.5 (Clustering.tracklet_eps), must_link True, whiten True" in log
    assert (tmp_path / "run" / "RecModel" / "mixed_tracklets.txt").is_file()


def test_unused_tracklets_change_nothing(frames, tmp_path, calls):
    more = {
        "Clustering__tracklet_aware": False,
        "DataLoader__Train__sampler__tracklet_aware": False,
    }
    run(overrides_of(frames, tmp_path / "off", **more))
    unknown = {"DataLoader__Train__dataset__tracklet_pattern": None}
    unknown["DataLoader__Train__dataset__camera_pattern"] = r"C(\d)T"
    run(overrides_of(frames, tmp_path / "unknown", **unknown))
    assert digest(tmp_path / "off") == digest(tmp_path / "unknown")
    assert all("tracklet_ids" not in options for _, options, _ in calls)
    assert {arguments[1] for arguments, _, _ in calls} == {0.6}
    assert not (tmp_path / "off" / "RecModel" / "mixed_tracklets.txt").exists()


def test_mixed_tracklets_are_counted_and_listed(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(pseudo_labels, "mixed_tracklets", lambda *_: np.array([1, 4]))
    engine = run(overrides_of(frames, tmp_path, Global__epochs=1))
    dataset = engine.train_dataset
    listed = (tmp_path / "RecModel" / "mixed_tracklets.txt").read_text().splitlines()
    for line, number in zip(listed, (1, 4), strict=True):
        rows = np.flatnonzero(dataset.tracklet_ids == number)
        assert line == (
            f"{dataset.tracklet_names[number]}: {len(rows)} images, {dataset.images[rows[0]]} to "
            f"{dataset.images[rows[-1]]}"
        )
    lines = re.findall(r"\[Epoch 1/1\] \d+ clusters.*", log_of(tmp_path))
    assert len(lines) == 2 and all("2 tracklets of mixed people" in line for line in lines)
    state = read_state_file(states(tmp_path)[0])["callbacks"]["ClusteringCallback"]
    assert state["mixed_tracklets"].tolist() == [1, 4]


def test_resumed_is_straight(frames, tmp_path):
    """Stopped within an epoch, where the labels come from the state."""
    straight, stopped = (
        [*overrides_of(frames, tmp_path / name, Global__save_step_interval=1)] for name in "ab"
    )
    run(straight)
    run(stopped, stop=(2, 1))
    run([*stopped, latest(tmp_path / "b")])
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    first, second = (
        read_state_file(states(tmp_path / name)[0])["callbacks"]["ClusteringCallback"]
        for name in "ab"
    )
    np.testing.assert_array_equal(first["labels"], second["labels"])
    np.testing.assert_array_equal(first["mixed_tracklets"], second["mixed_tracklets"])
    other = {"DataLoader__Train__dataset__tracklet_pattern": r"(\d+C\d)"}
    with pytest.raises((ConfigError, DataError), match="tracklet"):
        run([*overrides_of(frames, tmp_path / "b", **other), latest(tmp_path / "b")])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {
                "Clustering__tracklet_aware": True,
                "DataLoader__Train__dataset__tracklet_pattern": None,
            },
            "Clustering.tracklet_aware=True needs tracklets",
        ),
        ({"Clustering__approximate": True}, "Clustering.approximate=True finds no"),
        ({"Clustering__tracklet_aware": "always"}, "tracklet_aware has to be True, False or auto"),
        ({"Clustering__tracklet_aware": 1}, "tracklet_aware has to be True or False or a text"),
    ],
)
def test_mistakes_are_named_at_the_start(frames, tmp_path, more, words):
    with pytest.raises(ConfigError, match=words):
        engine_of(overrides_of(frames, tmp_path, **more), config=FOLDER)


def test_a_tracklet_in_two_cameras_is_refused(frames, tmp_path, monkeypatch):
    """Data sets number tracklets by camera; one of somebody else's may not."""
    engine = engine_of(overrides_of(frames, tmp_path, Clustering__camera_aware=True), config=FOLDER)
    dataset = engine.train_dataset
    tracklet_array(dataset.tracklet_ids, len(dataset), dataset.camids)
    dataset.camids = np.arange(len(dataset)) % 2
    with pytest.raises(DataError, match="images of two cameras"):
        engine.clustering.check(dataset)
