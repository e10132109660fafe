# SPDX-License-Identifier: Apache-2.0
"""Cameras and tracklets in a file of features."""

import numpy as np
import pytest

from ppcls_ise.cli.suggest_eps import suggest_eps
from ppcls_ise.deploy.feature_files import load_features, save_features
from ppcls_ise.errors import DataError
from tests.clustering.test_eps_range import people


def test_what_is_known_comes_back_and_is_used(tmp_path):
    features, _ = people(20, 12, 1.2)
    paths = [f"{i}.jpg" for i in range(240)]
    known = {"camids": np.arange(240) // 120, "tracklet_ids": np.arange(240) // 4 - 1}
    file = tmp_path / "f.npz"
    save_features(file, features, paths, model="abc", **known)
    found = load_features(file)
    assert (found.paths, found.model) == (paths, "abc")
    for name, numbers in known.items():
        np.testing.assert_array_equal(getattr(found, name), numbers)
    assert suggest_eps(None, str(file), [0.4, 0.5]).startswith("240 images, 63 tracklets\n")
    save_features(file, features, paths, model="abc")
    assert load_features(file)[3:] == (None, None)


@pytest.mark.parametrize("name", ["camids", "tracklet_ids"])
@pytest.mark.parametrize("numbers", [np.zeros(2, int), np.zeros(3), np.zeros((3, 1), int)])
def test_other_numbers_are_refused(tmp_path, name, numbers):
    arrays = {"features": np.eye(3, dtype=np.float32), "paths": np.array(["a", "b", "c"])}
    np.savez(tmp_path / "f.npz", model=np.array("m"), **arrays, **{name: numbers})
    with pytest.raises(DataError, match="one number per image"):
        load_features(tmp_path / "f.npz")
