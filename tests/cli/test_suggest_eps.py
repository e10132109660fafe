# SPDX-License-Identifier: Apache-2.0
"""tools/suggest_eps.py: files of features, a configuration, mistakes."""

import json

import numpy as np
import pytest
from PIL import Image

import ppcls_ise
from ppcls_ise.cli.suggest_eps import steps, suggest_eps
from ppcls_ise.config.overrides import get_config
from ppcls_ise.errors import ConfigError, DataError, WeightsError
from tests.clustering.test_eps_range import people
from tests.conftest import SYNTHETIC, lite_overrides, options, run_tool

ppcls_ise.register()


def test_features_file(tmp_path):
    features, _ = people(20, 10, 0.8)
    np.savez(tmp_path / "f.npz", features=3 * features, paths=np.array(["a.jpg"] * 200))
    np.save(tmp_path / "f.npy", features)
    plot, numbers = tmp_path / "eps.png", tmp_path / "out" / "eps.json"
    eps = steps(0.2, 0.8, 0.05)
    report = suggest_eps(None, str(tmp_path / "f.npz"), eps, plot=plot, json_file=numbers)
    assert suggest_eps(None, str(tmp_path / "f.npy"), eps) == report
    content = json.loads(numbers.read_text())
    assert f"Recommended: Clustering.eps={content['recommended']:g}: " in report
    assert len(report.splitlines()) == 2 + 13 + 1
    assert content["images"] == 200 and content["points"][0]["stability"] is None
    assert [point["eps"] for point in content["points"]] == eps
    with Image.open(plot) as image:
        assert image.format == "PNG" and image.width > 400


def test_the_clustering_section_counts_for_features(lite_set, tmp_path):
    features, _ = people(20, 10, 1.5)
    path = str(tmp_path / "f.npz")
    np.savez(path, features=features, camids=np.arange(200) % 4)
    overrides = lite_overrides(lite_set, tmp_path)
    plain = suggest_eps(get_config(str(SYNTHETIC), overrides), path, [0.4, 0.5])
    aware = get_config(str(SYNTHETIC), [*overrides, "Clustering.camera_aware=True"])
    assert suggest_eps(aware, path, [0.4, 0.5]) != plain
    strict = get_config(str(SYNTHETIC), [*overrides, "Clustering.min_samples=300"])
    assert "No recommendation: there is no cluster" in suggest_eps(strict, path, [0.4, 0.5])
    np.savez(path, features=features)
    with pytest.raises(DataError, match="no array camids"):
        suggest_eps(aware, path, [0.4])


def test_tracklets_in_the_file_are_used(lite_set, tmp_path):
    features, _ = people(20, 12, 1.2)
    path = str(tmp_path / "f.npz")
    tracklets = np.arange(240) // 4
    np.savez(path, features=features, tracklet_ids=tracklets)
    report = suggest_eps(None, path, [0.3, 0.4, 0.5])
    assert report.startswith("240 images, 60 tracklets\n")
    assert "Recommended: Clustering.tracklet_eps=" in report
    overrides = lite_overrides(lite_set, tmp_path)

    def with_options(*more):
        return suggest_eps(get_config(str(SYNTHETIC), [*overrides, *more]), path, [0.3, 0.4, 0.5])

    reports = {
        with_options(f"Clustering.{option}")
        for option in ("tracklet_aware=auto", "tracklet_aware=False", "whiten=False", "k1_inter=6")
    }
    assert len(reports) == 4
    assert report in reports
    np.savez(path, features=features, tracklet_ids=np.full(240, -1))
    assert with_options("Clustering.tracklet_aware=auto").startswith("240 images\n")
    with pytest.raises(DataError, match="no array tracklet_ids"):
        with_options("Clustering.tracklet_aware=True")
    np.savez(path, features=features, tracklet_ids=tracklets, camids=np.arange(240) % 2)
    with pytest.raises(DataError, match="two cameras"):
        with_options("Clustering.camera_aware=True")


def test_steps():
    assert steps(0.2, 0.8, 0.05)[-1] == 0.8 and len(steps(0.2, 0.8, 0.05)) == 13
    assert steps(0.4, 0.4, 0.1) == [0.4]
    for wrong in ((0.5, 0.4, 0.1), (-0.1, 0.4, 0.1), (0.1, 1.0, 0.1), (0.1, 0.5, 0.0)):
        with pytest.raises(ConfigError, match="--eps"):
            steps(*wrong)
    with pytest.raises(ConfigError, match="--features"):
        suggest_eps(None, None, [0.5])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"other": np.ones((2, 2))}, "no array features, only other"),
        ({"features": np.ones(3)}, "numbers \\[N, D\\]"),
        ({"features": np.array([["a"]])}, "numbers \\[N, D\\]"),
        ({"features": np.array([[1, None]])}, "is no .npz or .npy file"),
        ({"features": np.array([[1.0], [np.nan]])}, "row 1 of features is not finite"),
        ({"features": np.ones((2, 2)), "camids": np.ones(3, int)}, "camids"),
        ({"features": np.ones((2, 2)), "tracklet_ids": np.ones(2)}, "tracklet_ids"),
    ],
)
def test_bad_files(tmp_path, arrays, words):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DataError, match=words):
        suggest_eps(None, str(tmp_path / "f.npz"), [0.5])


def test_no_features_file_at_all(tmp_path):
    (tmp_path / "f.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(DataError, match="is no .npz or .npy file"):
        suggest_eps(None, str(tmp_path / "f.npz"), [0.5])
    with pytest.raises(OSError):
        suggest_eps(None, str(tmp_path / "nothing.npz"), [0.5])


def test_random_weights_are_refused(lite_set, tmp_path):
    config = get_config(str(SYNTHETIC), lite_overrides(lite_set, tmp_path))
    with pytest.raises(WeightsError, match="random weights"):
        suggest_eps(config, None, [0.5])


@pytest.mark.slow
def test_the_training_images_of_a_configuration(lite_set, tmp_path):
    overrides = lite_overrides(lite_set, tmp_path, Global__epochs=1)
    trained = run_tool("train", "-c", str(SYNTHETIC), *options(overrides))
    assert trained.returncode == 0, trained.stdout
    overrides.append(f"Global.pretrained_model={tmp_path}/RecModel/latest")
    plot = tmp_path / "eps.png"
    done = run_tool("suggest_eps", "-c", str(SYNTHETIC), *options(overrides), "--plot", str(plot))
    assert done.returncode == 0, done.stdout
    assert "80 images" in done.stdout and "ecommend" in done.stdout.splitlines()[-1]
    assert plot.stat().st_size > 5000
    wrong = run_tool("suggest_eps", "--features", str(tmp_path / "nothing.npz"))
    assert wrong.returncode == 1 and wrong.stdout.splitlines()[-1].startswith("error: ")
