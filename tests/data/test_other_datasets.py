# SPDX-License-Identifier: Apache-2.0
"""PersonX, VeRi-776, CUHK03-NP and Occluded-Duke on small trees."""

import logging

import numpy as np
import pytest

from ppcls_ise import data
from ppcls_ise.errors import DataError
from ppcls_ise.metrics import evaluate_rank
from tests.data.test_datasets import draw_image

SPLITS = ("bounding_box_train", "query", "bounding_box_test")
# Class -> a usual place, the folders of the splits, names of a split, identities, cameras.
SETS = {
    "UnsupervisedPersonX": (
        "personx/PersonX",
        SPLITS,
        ["0001_c1s1_0_0.jpg", "0001_c12s1_1_0.jpg", "0003_c6s1_2_0.jpg", "-1_c1s1_0_0.jpg"],
        [1, 1, 3],
        [11, 0, 5],
    ),
    "UnsupervisedVeRi776": (
        "veri/VeRi",
        ("image_train", "image_query", "image_test"),
        ["0001_c001_00016450_0.jpg", "0001_c020_00016460_0.jpg", "0776_c012_00000001_0.jpg"],
        [1, 1, 776],
        [0, 19, 11],
    ),
    "UnsupervisedCUHK03NP": (
        "CUHK03-NP/detected",
        SPLITS,
        ["0003_c1_21.png", "0003_c2_22.png", "1467_c2_1.png"],
        [3, 3, 1467],
        [0, 1, 1],
    ),
    "UnsupervisedCUHK03NPLabeled": (
        "CUHK03-NP/labeled",
        SPLITS,
        ["0003_c1_21.png", "0003_c2_22.png"],
        [3, 3],
        [0, 1],
    ),
    "UnsupervisedOccludedDuke": (
        "Occluded_Duke",
        SPLITS,
        ["0001_c2_f0046182.jpg", "0001_c8_f0046302.jpg"],
        [1, 1],
        [1, 7],
    ),
}
each_set = pytest.mark.parametrize("name", SETS)


def tree(root, name):
    place, folders, names, _, _ = SETS[name]
    for folder in folders:
        for seed, image in enumerate(names):
            draw_image(root / place / folder / image, seed)
    return root


@each_set
@pytest.mark.parametrize("split", SPLITS)
def test_identities_and_cameras_of_every_split(tmp_path, name, split):
    _, _, _, pids, camids = SETS[name]
    dataset = getattr(data, name)(str(tree(tmp_path, name)), split)
    assert dataset.pids.tolist() == pids and dataset.camids.tolist() == camids
    assert dataset.training == (split == "bounding_box_train")


@each_set
def test_its_own_folder_is_found_too(tmp_path, name):
    place = tree(tmp_path, name) / SETS[name][0]
    assert len(getattr(data, name)(str(place), "query")) == len(SETS[name][3])


@each_set
def test_counts_are_compared_with_the_published_ones(tmp_path, name, caplog):
    cls = getattr(data, name)
    with caplog.at_level(logging.INFO, logger="ppcls"):
        cls(str(tree(tmp_path, name)), "query")
    assert str(cls.published_counts["query"]) in caplog.text
    assert sum(cls.published_counts.values()) > 14_000 and set(cls.published_counts) == set(SPLITS)


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("UnsupervisedPersonX", "0001_c7s1_0_0.jpg", "names camera 7"),
        ("UnsupervisedPersonX", "0001_c0s1_0_0.jpg", "names camera 0"),
        ("UnsupervisedVeRi776", "0001_c021_00016450_0.jpg", "cameras 1 to 20"),
        ("UnsupervisedCUHK03NP", "0003_c3_21.png", "cameras 1 to 2"),
        ("UnsupervisedOccludedDuke", "0001_c9_f0046182.jpg", "cameras 1 to 8"),
        ("UnsupervisedVeRi776", "vehicle.jpg", "does not begin"),
    ],
)
def test_names_of_another_data_set_are_refused(tmp_path, name, image, words):
    place, folders, *_ = SETS[name]
    draw_image(tree(tmp_path, name) / place / folders[1] / image)
    with pytest.raises(DataError, match=words):
        getattr(data, name)(str(tmp_path), "query")


@each_set
def test_what_is_missing_is_named(tmp_path, name):
    place, folders, *_ = SETS[name]
    with pytest.raises(DataError) as error:
        getattr(data, name)(str(tmp_path), "query")
    assert f"'{folders[1]}'" in str(error.value) and place in str(error.value)


def test_vehicles_of_the_same_camera_do_not_count(tmp_path):
    """VeRi's protocol: the match of another camera counts, however many of the own are closer."""
    dataset = data.UnsupervisedVeRi776(str(tree(tmp_path, "UnsupervisedVeRi776")), "query")
    gallery = np.eye(3, dtype=np.float32)[[0, 1, 2]]
    query = gallery[:1] * 0.9 + gallery[1:2] * 0.1
    result = evaluate_rank(
        query / np.linalg.norm(query), gallery, dataset.pids[:1], dataset.pids,
        dataset.camids[:1], dataset.camids,
    )  # fmt: skip
    assert result.num_valid_queries == 1 and result.mAP == 1.0
