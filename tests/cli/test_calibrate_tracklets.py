# SPDX-License-Identifier: Apache-2.0
"""`search calibrate` counts no pair within a tracklet."""

from argparse import Namespace

import numpy as np

from ppcls_ise.cli.search import calibrate_gallery
from ppcls_ise.deploy.feature_files import save_features
from ppcls_ise.retrieval.gallery_search import GallerySearch
from tests.retrieval.test_calibration import pairs_of, people


def test_pairs_of_one_tracklet_are_not_counted(tmp_path):
    rows, identities = people(6, 8, noise=0.6)
    paths = [f"/crops/{p + 1:04d}_c{i % 2}s1_{i:06d}.jpg" for i, p in enumerate(identities)]
    cameras = np.arange(48) % 2
    numbers = np.arange(48) // 4 * 2 + cameras
    numbers[:5] = -1
    names = ["" if number < 0 else f"t{number}" for number in numbers]
    file = str(tmp_path / "g")

    def pairs(labels="names", features=None):
        args = Namespace(gallery=file, labels=labels, features=features, false_accept=0.1, eps=0.5)
        calibrate_gallery(args)
        made = GallerySearch.load(file).calibration
        return made.same_pairs, made.different_pairs

    table = tmp_path / "people.csv"
    lines = [f"{path},{person}" for path, person in zip(paths, identities, strict=True)]
    table.write_text("\n".join(["path,identity", *lines]) + "\n")
    for given, used in ((names, numbers), (None, None)):
        gallery = GallerySearch(model="m")
        gallery.add(paths, rows, tracklets=given)
        gallery.save(file)
        same, different = pairs_of(rows, identities, None, used)
        assert pairs(str(table)) == (len(same), len(different))
        same, different = pairs_of(rows, identities, cameras, used)
        assert pairs() == (len(same), len(different))
    features = tmp_path / "f.npz"
    save_features(features, rows, paths, model="m", tracklet_ids=numbers)
    same, different = pairs_of(rows, identities, None, numbers)
    assert pairs(str(table), str(features)) == (len(same), len(different))
