# SPDX-License-Identifier: Apache-2.0
"""Market-1501, MSMT17 and DukeMTMC on small trees, and what all data sets share."""

import logging
import os

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls_ise.data import (
    IdentitySampler,
    ImageReadError,
    UnsupervisedDukeMTMC,
    UnsupervisedMarket1501,
    UnsupervisedMSMT17,
)

MARKET = [
    "0002_c1s1_000451_03.jpg",
    "0002_c3s1_000076_01.jpg",
    "0000_c2s1_000301_01.jpg",
    "-1_c1s1_000401_03.jpg",
    "0007_c6s3_077419_02.jpg",
]
RESIZE = {"ResizeImage": {"size": [8, 16], "interpolation": "bicubic", "backend": "pil"}}
AUGMENT = [
    RESIZE,
    {"RandFlipImage": None},
    {"NormalizeImage": {"order": ""}},
    {"RandomErasing": {}},
]


def draw_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="PNG")  # exact, whatever the suffix says


def market_tree(root, names=MARKET, split="bounding_box_train"):
    for seed, name in enumerate(sorted(names)):
        draw_image(root / split / name, seed)
    return root


def names(dataset):
    return [os.path.basename(path) for path in dataset.images]


# --- Market-1501 and DukeMTMC: one folder per split


def test_market_names_are_parsed_and_junk_is_dropped(tmp_path):
    dataset = UnsupervisedMarket1501(str(market_tree(tmp_path)), "bounding_box_train")
    assert names(dataset) == sorted(name for name in MARKET if not name.startswith("-1"))
    assert dataset.images == sorted(dataset.images)
    assert dataset.pids.tolist() == [0, 2, 2, 7] and dataset.pids.dtype == np.int64
    assert dataset.camids.tolist() == [1, 0, 2, 5] and dataset.camids.dtype == np.int64
    assert len(dataset) == 4 and dataset.pseudo_labels.tolist() == [-1] * 4


@pytest.mark.parametrize("inner", ["", "market1501/Market-1501-v15.09.15", "Market-1501"])
def test_usual_places_are_found(tmp_path, inner):
    market_tree(tmp_path / inner)
    assert len(UnsupervisedMarket1501(str(tmp_path), "bounding_box_train")) == 4


def test_missing_folder_says_what_was_tried_and_which_key_to_change(tmp_path):
    with pytest.raises(ValueError) as caught:
        UnsupervisedMarket1501(str(tmp_path / "nowhere"), "query")
    for part in ("query", "Market-1501-v15.09.15", "image_root", str(tmp_path / "nowhere")):
        assert part in str(caught.value)


@pytest.mark.parametrize("root", [None, ""])
def test_no_folder_at_all_is_said(root):
    with pytest.raises(ValueError, match="image_root"):
        UnsupervisedMarket1501(root, "query")


def test_unknown_split_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="bounding_box_train, query, bounding_box_test"):
        UnsupervisedMarket1501(str(market_tree(tmp_path)), "gallery")


def test_only_the_base_name_is_parsed(tmp_path):
    dataset = UnsupervisedMarket1501(str(market_tree(tmp_path / "run_7_c2")), "bounding_box_train")
    assert dataset.pids.tolist() == [0, 2, 2, 7]


def test_other_files_are_passed_over(tmp_path):
    market_tree(tmp_path)
    folder = tmp_path / "bounding_box_train"
    for name in ("Thumbs.db", "._0002_c1s1_000451_03.jpg", "readme.txt"):
        (folder / name).write_bytes(b"x")
    draw_image(folder / "__MACOSX" / "0009_c1s1_000000_00.jpg")
    assert len(UnsupervisedMarket1501(str(tmp_path), "bounding_box_train")) == 4


@pytest.mark.parametrize("name", ["person.jpg", "0002_c7s1_000451_03.jpg", "0002_c0s1_0_0.jpg"])
def test_names_against_the_rule_are_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=name):
        UnsupervisedMarket1501(str(market_tree(tmp_path, [*MARKET, name])), "bounding_box_train")


def test_empty_split_is_refused(tmp_path):
    market_tree(tmp_path, ["-1_c1s1_000401_03.jpg"])
    with pytest.raises(ValueError, match="no usable image"):
        UnsupervisedMarket1501(str(tmp_path), "bounding_box_train")


def test_count_is_compared_with_the_published_one(tmp_path, caplog, monkeypatch):
    market_tree(tmp_path)
    with caplog.at_level(logging.INFO, logger="ppcls"):
        UnsupervisedMarket1501(str(tmp_path), "bounding_box_train")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "4" in caplog.messages[1] and "12936" in caplog.messages[1]
    caplog.clear()
    monkeypatch.setattr(UnsupervisedMarket1501, "published_counts", {"bounding_box_train": 4})
    with caplog.at_level(logging.INFO, logger="ppcls"):
        UnsupervisedMarket1501(str(tmp_path), "bounding_box_train")
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_duke(tmp_path):
    market_tree(
        tmp_path / "DukeMTMC-reID", ["0005_c2_f0046985.jpg", "0005_c8_f0044158.jpg"], "query"
    )
    dataset = UnsupervisedDukeMTMC(str(tmp_path), "query")
    assert dataset.pids.tolist() == [5, 5] and dataset.camids.tolist() == [1, 7]


# --- MSMT17: three forms

TRAIN = ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_002_15_0303noon_0001_1.jpg 1"]
VAL = ["0000/0000_001_07_0303morning_0010_2.jpg 0"]
QUERY = ["0002/0002_000_03_0114afternoon_0001_0.jpg 2"]
GALLERY = ["0002/0002_001_04_0114afternoon_0002_0.jpg 2", "0003/0003_000_04_0_0.jpg 3"]
LISTS = {"list_train": TRAIN, "list_val": VAL, "list_query": QUERY, "list_gallery": GALLERY}


def msmt_tree(root, train="train", test="test", **changed):
    root.mkdir(parents=True, exist_ok=True)
    for name, lines in {**LISTS, **changed}.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
        for line in LISTS[name]:
            draw_image(
                root / (train if name in ("list_train", "list_val") else test) / line.split()[0]
            )
    return root


@pytest.mark.parametrize(
    ("inner", "train", "test"),
    [
        ("msmt17/MSMT17_V1", "train", "test"),
        ("MSMT17_V2", "mask_train_v2", "mask_test_v2"),
        ("", "mask_train_v2", "mask_test_v2"),
    ],
)
def test_msmt17_lists(tmp_path, inner, train, test):
    msmt_tree(tmp_path / inner, train, test)
    root = str(tmp_path)
    dataset = UnsupervisedMSMT17(root, "bounding_box_train")
    assert dataset.images == sorted(dataset.images) and all(map(os.path.isfile, dataset.images))
    assert dataset.pids.tolist() == [0, 0, 1] and dataset.camids.tolist() == [0, 6, 14]
    assert dataset.training
    query = UnsupervisedMSMT17(root, "query")
    assert query.pids.tolist() == [2] and query.camids.tolist() == [2] and not query.training
    gallery = UnsupervisedMSMT17(root, "bounding_box_test")
    assert gallery.pids.tolist() == [2, 3] and gallery.camids.tolist() == [3, 3]


def test_msmt17_in_folders_like_market(tmp_path):
    market_tree(tmp_path / "MSMT17_V1", ["0001_c15_0000.jpg", "0000_c1_0001.jpg"])
    dataset = UnsupervisedMSMT17(str(tmp_path), "bounding_box_train")
    assert dataset.pids.tolist() == [0, 1] and dataset.camids.tolist() == [0, 14]


def test_msmt17_passes_over_macos_junk(tmp_path):
    lines = [*TRAIN, "__MACOSX/0000/0000_000_01_0_0.jpg 0", "0000/._0000_000_01_0_0.jpg 0", ""]
    msmt_tree(tmp_path, list_train=lines)
    assert len(UnsupervisedMSMT17(str(tmp_path), "bounding_box_train")) == 3


@pytest.mark.parametrize(
    "path",
    [
        "../0000_000_01_0_0.jpg",
        "0000/../../0000_000_01_0_0.jpg",
        "/etc/0000_000_01_0_0.jpg",
        "..\\0000_000_01_0_0.jpg",
        "C:/0000_000_01_0_0.jpg",
    ],
)
def test_msmt17_lists_cannot_point_outside(tmp_path, path):
    msmt_tree(tmp_path, list_train=[*TRAIN, f"{path} 0"])
    with pytest.raises(ValueError, match=r"list_train.txt, line 3.*outside"):
        UnsupervisedMSMT17(str(tmp_path), "bounding_box_train")


@pytest.mark.parametrize("line", ["0000/0000_000_01_0_0.jpg", "0000/a.jpg 0", "0000/0_0_1_0.jpg x"])
def test_msmt17_malformed_line_is_located(tmp_path, line):
    msmt_tree(tmp_path, list_query=[line])
    with pytest.raises(ValueError, match="list_query.txt, line 1"):
        UnsupervisedMSMT17(str(tmp_path), "query")


def test_msmt17_other_faults_are_explained(tmp_path):
    msmt_tree(tmp_path / "twice", list_val=TRAIN[:1])
    with pytest.raises(ValueError, match="listed twice"):
        UnsupervisedMSMT17(str(tmp_path / "twice"), "bounding_box_train")
    (msmt_tree(tmp_path / "half") / "list_val.txt").unlink()
    with pytest.raises(ValueError, match="list_val.txt is missing"):
        UnsupervisedMSMT17(str(tmp_path / "half"), "bounding_box_train")
    msmt_tree(tmp_path / "bare", train="elsewhere")
    with pytest.raises(ValueError, match="mask_train_v2"):
        UnsupervisedMSMT17(str(tmp_path / "bare"), "bounding_box_train")
    with pytest.raises(ValueError, match="image_root"):
        UnsupervisedMSMT17(str(tmp_path / "nothing"), "bounding_box_train")


def test_msmt17_listed_but_missing_file_stays_in_the_list(tmp_path):
    missing = "0000/0000_000_02_0303morning_0009_0.jpg"
    msmt_tree(tmp_path, list_train=[*TRAIN, f"{missing} 0"])
    dataset = UnsupervisedMSMT17(str(tmp_path), "bounding_box_train", [RESIZE])
    assert len(dataset) == 4
    index = dataset.images.index(str(tmp_path / "train" / missing))
    assert dataset[index][1].tolist() == [-1, index, 0]
    assert "does not exist" in str(dataset.read_error(index))


# --- items


@pytest.fixture
def training(tmp_path):
    return UnsupervisedMarket1501(str(market_tree(tmp_path)), "bounding_box_train", AUGMENT)


def test_item_of_an_evaluation_split(tmp_path):
    market_tree(tmp_path, split="query")
    dataset = UnsupervisedMarket1501(str(tmp_path), "query", [RESIZE])
    assert not dataset.training
    image, label, camera = dataset[3]
    assert image.dtype == np.float32 and image.shape == (3, 16, 8) and image.flags.c_contiguous
    assert label.dtype == np.int64 and label.tolist() == [7, 3, 1]
    assert camera.dtype == np.int64 and camera == 5
    with Image.open(dataset.images[3]) as picture:
        expected = np.asarray(picture.resize((8, 16), Image.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(image, expected)


def test_without_transforms_pixels_come_as_they_are(tmp_path):
    dataset = UnsupervisedMarket1501(str(market_tree(tmp_path)), "bounding_box_train")
    assert dataset[0][0].shape == (3, 20, 10) and dataset[0][0].max() > 200


def test_label_of_a_training_item_is_its_pseudo_label(training):
    assert training.training
    assert [training[i][1].tolist() for i in range(4)] == [[-1, i, 1] for i in range(4)]
    training.pseudo_labels = np.array([3, 0, -1, 5], dtype=np.int32)
    assert [training[i][1][0] for i in range(4)] == [3, 0, -1, 5]
    assert training.pseudo_labels.dtype == np.int64


@pytest.mark.parametrize("labels", [[0, 1, 2], [0.0, 1, 2, 3], [[0, 1, 2, 3]], 0])
def test_pseudo_labels_of_another_form_are_refused(training, labels):
    with pytest.raises(ValueError, match="4 integers"):
        training.pseudo_labels = np.array(labels)


def test_view_shares_the_list_and_hides_identities(training):
    training.pseudo_labels = np.arange(4)
    view = training.view([RESIZE])
    assert view.images is training.images and len(view) == 4
    assert [view[i][1].tolist() for i in range(4)] == [[-1, i, 1] for i in range(4)]
    np.testing.assert_array_equal(view[2][0], view[2][0])
    assert training[2][1][0] == 2


def test_draw_number_decides_the_augmentation(training):
    IdentitySampler(training, 4, 2, seed=3).set_epoch(5)
    first = [training[0, draw][0] for draw in range(8)]
    np.random.seed(0)
    for draw, image in enumerate(first):
        np.testing.assert_array_equal(training[0, draw][0], image)
    assert len({image.tobytes() for image in first}) > 2
    training.epoch = 6
    assert any(not np.array_equal(training[0, d][0], first[d]) for d in range(8))


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_image_is_reported_by_index_and_raised_by_draw(training, content):
    path = training.images[1]
    os.unlink(path) if content is None else open(path, "wb").write(content)
    for dataset in (training, training.view([RESIZE])):
        image, label, camera = dataset[1]
        assert image.shape == (3, 16, 8) and image.dtype == np.float32 and not image.any()
        assert label.tolist() == [-1, 1, 0] and camera == 0
        assert path in str(dataset.read_error(1)) and dataset.read_error(0) is None
    with pytest.raises(ImageReadError, match=os.path.basename(path)):
        training[1, 0]


def test_wrong_shape_from_transforms_names_the_remedy(tmp_path):
    root = str(market_tree(tmp_path))
    dataset = UnsupervisedMarket1501(root, "bounding_box_train", [RESIZE, {"ToCHWImage": None}])
    with pytest.raises(ValueError, match="ToCHWImage"):
        dataset[0]


def load(dataset, sampler, num_workers):
    loader = paddle.io.DataLoader(
        dataset, batch_sampler=sampler, num_workers=num_workers, return_list=True
    )
    return [[column.numpy() for column in batch] for batch in loader]


def test_batches_do_not_depend_on_workers_or_ranks(training):
    training.pseudo_labels = np.array([0, 1, 1, 2])

    def sampler(batch_size, world_size=1, rank=0):
        return IdentitySampler(training, batch_size, 2, 3, world_size=world_size, rank=rank)

    # First: a worker forked while a thread of another loader frees memory may inherit its lock.
    with_workers = load(training, sampler(4), 2)
    alone = load(training, sampler(4), 0)
    assert [column.shape for column in alone[0]] == [(4, 3, 16, 8), (4, 3), (4,)]
    halves = [load(training, sampler(2, 2, rank), 0) for rank in range(2)]
    for step, batch in enumerate(alone):
        for column, values in enumerate(batch):
            np.testing.assert_array_equal(with_workers[step][column], values)
            both = np.concatenate([half[step][column] for half in halves])
            np.testing.assert_array_equal(both, values)


def test_identities_in_file_names_do_not_reach_training(tmp_path):
    """Another identity for every file, in the same order: not a byte of training changes."""
    true = [
        "0002_c1s1_1_0.jpg",
        "0002_c3s1_2_0.jpg",
        "0002_c5s1_3_0.jpg",
        "0007_c1s1_4_0.jpg",
        "0007_c2s1_5_0.jpg",
        "0010_c6s1_6_0.jpg",
    ]
    scrambled = [f"{i + 1:04d}{name[4:]}" for i, name in enumerate(true)]
    streams = []
    for names_now in (true, scrambled):
        root = market_tree(tmp_path / names_now[0] / names_now[1], names_now)
        dataset = UnsupervisedMarket1501(str(root), "bounding_box_train", AUGMENT)
        dataset.pseudo_labels = np.array([0, 0, 1, 1, -1, 1])
        batches = list(IdentitySampler(dataset, 4, 2, 5))
        items = [dataset[item] for batch in batches for item in batch]
        items += [dataset.view([RESIZE])[i] for i in range(len(dataset))]
        streams.append((batches, [[part.tobytes() for part in item] for item in items]))
        assert not np.array_equal(dataset.pids, dataset.pseudo_labels)
    assert streams[0] == streams[1]
