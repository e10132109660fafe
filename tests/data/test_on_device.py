# SPDX-License-Identifier: Apache-2.0
"""uint8 images and what the device makes of them: the bytes of the path over the host."""

import numpy as np
import paddle
import pytest

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.data import MarketStyleDataset
from ppcls_ise.data.on_device import OnDevice
from ppcls_ise.errors import ConfigError
from tests.conftest import lite_overrides
from tests.engine.test_engine import digest, train

RESIZE = {"ResizeImage": {"size": [24, 48], "interpolation": "bicubic", "backend": "pil"}}
NORMALIZE = {
    "NormalizeImage": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": ""}
}
TRAIN = [
    RESIZE,
    {"RandFlipImage": {"flip_code": 1}},
    {"RandomPadCrop": {"padding": 5}},
    NORMALIZE,
    {"RandomErasing": {"EPSILON": 0.7, "mean": [0.485, 0.456, 0.406]}},
]


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


@pytest.mark.parametrize("ops", [TRAIN, [RESIZE, NORMALIZE]])
def test_images_are_those_of_the_host_byte_for_byte(lite_set, ops, transfers):
    there = MarketStyleDataset(str(lite_set), transform_ops=ops)
    here = MarketStyleDataset(str(lite_set), transform_ops=ops)
    here.normalize_on_device()
    items = [here[i % 10, i] for i in range(40)]
    assert {image.dtype for image, *_ in items} == {np.dtype(np.uint8)}
    images, labels = (
        paddle.to_tensor(np.stack(part)) for part in list(zip(*items, strict=True))[:2]
    )
    with transfers() as found:
        ours = here.on_device(images, labels)
    assert not found
    wanted = np.stack([there[i % 10, i][0] for i in range(40)])
    assert ours.numpy().tobytes() == wanted.tobytes()


def test_an_image_that_cannot_be_read_is_black_and_has_a_rectangle(lite_set, tmp_path):
    dataset = MarketStyleDataset(str(lite_set), transform_ops=TRAIN)
    dataset.normalize_on_device()
    dataset.images[0] = str(tmp_path / "missing.jpg")
    image, label, _ = dataset[0]
    assert image.dtype == np.uint8 and not image.any()
    assert label.tolist() == [-1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([RESIZE], "end with NormalizeImage.*got ResizeImage"),
        ([NORMALIZE, RESIZE], "end with NormalizeImage"),
        ([{"RandomErasing": {}}], "end with NormalizeImage"),
        ([NORMALIZE, {"RandomErasing": {"mode": "pixel"}}], "mode const"),
        ([{"NormalizeImage": {"output_fp16": True}}], "float32"),
    ],
)
def test_lists_that_a_device_cannot_follow_are_refused(ops, message):
    with pytest.raises(ConfigError, match=message):
        OnDevice(compat.build_transforms(ops))


def test_something_else_than_uint8_is_refused(lite_set):
    dataset = MarketStyleDataset(str(lite_set), transform_ops=[RESIZE, NORMALIZE, NORMALIZE])
    dataset.normalize_on_device()
    with pytest.raises(ConfigError, match="uint8 before NormalizeImage, got float32"):
        dataset[0]


@pytest.mark.slow
def test_a_training_ends_with_the_same_weights(lite_set, tmp_path):
    ends = []
    for flag in (False, True):
        out = tmp_path / str(flag)
        train(lite_overrides(lite_set, out, Global__epochs=1, Global__normalize_on_device=flag))
        ends.append(digest(out))
    assert ends[0] == ends[1]
