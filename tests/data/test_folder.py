# SPDX-License-Identifier: Apache-2.0
"""Training on a folder of one's own."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from ppcls_ise.data import IdentitySampler, UnlabeledFolder


def tree(root, *names):
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")
    return str(root)


def inner_names(dataset, root):
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in dataset.images]


def test_all_images_are_found_in_order_of_their_paths(tmp_path):
    names = ["b.JPG", "a/x.png", "a/deep/er/y.jpeg", "c.bmp", "d.WebP", "a-b/z.jpg"]
    root = tree(tmp_path, *names)
    (tmp_path / "notes.txt").write_text("no image")
    dataset = UnlabeledFolder(root)
    assert sorted(inner_names(dataset, root)) == sorted(names)
    assert dataset.images == sorted(dataset.images)
    assert dataset.pids is None and dataset.camids is None and dataset.training
    assert dataset.pseudo_labels.tolist() == [-1] * 6


def test_junk_and_hidden_files_are_passed_over(tmp_path):
    root = tree(tmp_path, "a.jpg", "._a.jpg", "__MACOSX/a.jpg", "x/__MACOSX/b.jpg", ".cache/t.jpg")
    assert inner_names(UnlabeledFolder(root), root) == ["a.jpg"]


def test_items_carry_pseudo_labels_and_no_camera(tmp_path):
    dataset = UnlabeledFolder(tree(tmp_path, "a.jpg", "b.jpg"))
    dataset.pseudo_labels = np.array([4, -1])
    image, label, camera = dataset[0]
    assert image.shape == (3, 6, 4) and label.tolist() == [4, 0, 1] and camera == -1
    assert dataset.view(None)[0][1].tolist() == [-1, 0, 1]


def test_one_image_is_enough_for_a_batch(tmp_path):
    dataset = UnlabeledFolder(tree(tmp_path, "only.png"))
    dataset.pseudo_labels = np.array([0])
    assert list(IdentitySampler(dataset, 4, 2, 1)) == [[(0, 0), (0, 1)]]


def test_sub_folder_can_be_chosen(tmp_path):
    root = tree(tmp_path, "train/a.jpg", "other/b.jpg")
    assert inner_names(UnlabeledFolder(root, "train"), root) == ["train/a.jpg"]


@pytest.mark.parametrize("missing", [True, False])
def test_no_folder_and_no_image_say_which_key_to_change(tmp_path, missing):
    folder = tmp_path / "images"
    if not missing:
        folder.mkdir()
    with pytest.raises(ValueError, match="image_root") as caught:
        UnlabeledFolder(str(folder))
    assert str(folder) in str(caught.value)


def test_symbolic_links_are_followed_once(tmp_path):
    root = tmp_path / "root"
    tree(root, "a/1.jpg", "a/2.jpg")
    tree(tmp_path / "elsewhere", "3.jpg")
    (root / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "a" / "loop").symlink_to(root, target_is_directory=True)
    (root / "linked_again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    dataset = UnlabeledFolder(str(root))
    assert inner_names(dataset, root) == ["a/1.jpg", "a/2.jpg", "linked/3.jpg"]


def test_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    root = tree(tmp_path, "a.jpg", "b/c.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match="cannot list .*b: Permission denied"):
        UnlabeledFolder(root)


def test_camera_is_the_folder_of_the_image(tmp_path):
    root = tree(tmp_path, "day1/east/1.jpg", "day1/west/1.jpg", "day2/east/1.jpg")
    dataset = UnlabeledFolder(root, camera_from_folder=True)
    assert dataset.camids.tolist() == [0, 1, 0] and dataset.camids.dtype == np.int64
    assert dataset[1][2] == 1


def test_numeric_cameras_are_ordered_by_value(tmp_path):
    root = tree(tmp_path, "10/a.jpg", "2/a.jpg", "02/b.jpg", "1/a.jpg")
    dataset = UnlabeledFolder(root, camera_from_folder=True)
    assert inner_names(dataset, root) == ["02/b.jpg", "1/a.jpg", "10/a.jpg", "2/a.jpg"]
    assert dataset.camids.tolist() == [1, 0, 2, 1]


def test_image_outside_the_camera_folders_is_named(tmp_path):
    root = tree(tmp_path, "east/1.jpg", "stray.jpg")
    with pytest.raises(ValueError, match=r"stray\.jpg.*camera_pattern"):
        UnlabeledFolder(root, camera_from_folder=True)


def test_camera_by_pattern_sees_the_inner_path_only(tmp_path):
    root = tree(tmp_path / "cam9", "x/a_cam3.jpg", "x/b_cam12.jpg", "x/c_cam3.jpg")
    dataset = UnlabeledFolder(root, camera_pattern=r"cam(\d+)")
    assert dataset.camids.tolist() == [0, 1, 0]
    by_folder = UnlabeledFolder(root, camera_pattern="^([^/]+)/")
    assert by_folder.camids.tolist() == [0, 0, 0]


@pytest.mark.parametrize("pattern", [r"cam(\d+)", r"_(cam\d+)?"])
def test_file_without_a_camera_is_named(tmp_path, pattern):
    root = tree(tmp_path, "a_cam3.jpg", "b_none.jpg")
    with pytest.raises(ValueError, match=r"b_none\.jpg"):
        UnlabeledFolder(root, camera_pattern=pattern)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"camera_pattern": r"cam(\d+)", "camera_from_folder": True}, "exclude"),
        ({"camera_pattern": r"cam\d+"}, "group"),
        ({"camera_pattern": r"cam(\d+"}, "camera_pattern"),
    ],
)
def test_senseless_camera_rules_are_refused(tmp_path, arguments, word):
    with pytest.raises(ValueError, match=word):
        UnlabeledFolder(tree(tmp_path, "a_cam3.jpg"), **arguments)


def test_summary_is_logged(tmp_path, caplog):
    root = tree(tmp_path, "1/a.jpg", "2/b.jpg")
    with caplog.at_level(logging.INFO, logger="ppcls"):
        UnlabeledFolder(root)
        UnlabeledFolder(root, camera_from_folder=True)
    assert [message.split(": ")[1] for message in caplog.messages] == [
        "2 images, no cameras",
        "2 images, 2 cameras",
    ]
