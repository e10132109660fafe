# SPDX-License-Identifier: Apache-2.0
"""`infer` writes cameras and tracklets that names or options tell."""

import shutil

import numpy as np
import pytest

from ppcls_ise.cli.infer import command as infer
from ppcls_ise.deploy.feature_files import load_features
from ppcls_ise.errors import ConfigError
from tests.deploy.test_export import infer_args

NAMES = ["cam2_track7_1.jpg", "cam2_track7_2.jpg", "cam2_track9_1.jpg", "cam10_track7_1.jpg"]


@pytest.fixture
def frames(lite_set, tmp_path):
    (tmp_path / "frames").mkdir()
    for name, source in zip(NAMES, sorted((lite_set / "query").iterdir()), strict=False):
        shutil.copy(source, tmp_path / "frames" / name)
    return tmp_path / "frames"


def test_cameras_and_tracklets_are_in_the_file(lite_model, frames, tmp_path):
    out = tmp_path / "f.npz"

    def run(*more):
        arguments = ("--model", lite_model, "--images", frames, "--out", out, *more)
        return infer(infer_args(*arguments)), load_features(out)

    report, file = run()
    assert report.endswith("f.npz, in 2 cameras and 3 tracklets")
    order = [path.rpartition("/")[2] for path in file.paths]
    cameras = dict(zip(order, file.camids, strict=True))
    tracklets = dict(zip(order, file.tracklet_ids, strict=True))
    assert [cameras[name] for name in NAMES] == [0, 0, 0, 1]
    same = [[tracklets[a] == tracklets[b] for a in NAMES] for b in NAMES]
    np.testing.assert_array_equal(same, [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    _, file = run("--tracklet-pattern", r"_(\d+)\.jpg", "--camera-pattern", "(cam)")
    assert file.camids.tolist() == [0] * 4 and len(set(file.tracklet_ids)) == 2
    (frames / "other.jpg").write_bytes((frames / NAMES[0]).read_bytes())
    report, file = run()
    assert report.endswith("f.npz") and file.camids is None and file.tracklet_ids is None
    with pytest.raises(ConfigError, match="holds no cameras and tracklets"):
        run("--tracklet-pattern", "(x)", "--out", tmp_path / "f.csv")
