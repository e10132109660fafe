# SPDX-License-Identifier: Apache-2.0
"""The recipe's transforms: ours, and those of PaddleClas that the configurations rely on."""

import collections
import math
import random

import numpy as np
import pytest
from PIL import Image

import ppcls_ise
from ppcls_ise import compat
from ppcls_ise.data import RandomPadCrop
from ppcls_ise.data.transforms import seeded_generators
from ppcls_ise.errors import ConfigError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
RESIZE = {"ResizeImage": {"size": [128, 256], "interpolation": "bicubic", "backend": "pil"}}
NORMALIZE = {"NormalizeImage": {"scale": 1 / 255, "mean": MEAN, "std": STD, "order": ""}}
ERASE = {"RandomErasing": {"EPSILON": 0.5, "sl": 0.02, "sh": 0.4, "r1": 0.3, "mean": MEAN}}
RECIPE = [RESIZE, {"RandFlipImage": None}, {"RandomPadCrop": {"padding": 10}}, NORMALIZE, ERASE]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def only_op(config):
    (op,) = compat.build_transforms([config])
    return op


def test_crop_reaches_every_position_about_equally_often():
    padding = 2
    image = (1 + np.arange(4 * 3).reshape(4, 3, 1)).repeat(3, axis=2).astype(np.uint8)
    padded = np.zeros((8, 7, 3), np.uint8)
    padded[2:6, 2:5] = image
    windows = {
        padded[top : top + 4, left : left + 3].tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
    }
    assert len(windows) == (2 * padding + 1) ** 2
    op = RandomPadCrop(padding=padding)
    with seeded_generators(0):
        found = collections.Counter(windows[op(image).tobytes()] for _ in range(10000))
    assert len(found) == 25
    assert min(found.values()) > 300 and max(found.values()) < 500  # expected 400, sigma 20


def test_crop_keeps_size_and_type_and_fills_black():
    op = RandomPadCrop(padding=10)
    for dtype in (np.uint8, np.float32):
        image = np.full((256, 128, 3), 7, dtype)
        result = op(image)
        assert result.shape == image.shape and result.dtype == dtype
        assert result.flags.c_contiguous and set(np.unique(result)) <= {0, 7}
        assert (image == 7).all()


def test_crop_without_padding_is_the_image():
    np.testing.assert_array_equal(RandomPadCrop(padding=0)(noise(6, 4)), noise(6, 4))


def test_crop_size_is_width_then_height_as_in_resize():
    assert RandomPadCrop(padding=1, size=[5, 9])(noise(20, 10)).shape == (9, 5, 3)


@pytest.mark.parametrize("arguments", [{"padding": -1}, {"size": [0, 5]}, {"size": [5]}])
def test_crop_refuses_senseless_parameters(arguments):
    with pytest.raises(ConfigError, match="RandomPadCrop"):
        RandomPadCrop(**arguments)


def test_crop_refuses_a_window_larger_than_the_padded_image():
    with pytest.raises(ConfigError, match="does not fit"):
        RandomPadCrop(padding=1, size=[7, 6])(noise(4, 4))


def test_seeding_repeats_and_leaves_the_outside_alone():
    def draw():
        return random.random(), float(np.random.rand())

    outside = random.getstate(), np.random.get_state()[1].tolist()
    with seeded_generators(1, 2, 3):
        first = draw()
    with pytest.raises(RuntimeError), seeded_generators(1, 2, 3):
        raise RuntimeError
    with seeded_generators(1, 2, 3):
        assert draw() == first
    for other in [(1, 2, 4), (1, 3, 3), (2, 2, 3)]:
        with seeded_generators(*other):
            different = draw()
        assert different[0] != first[0] and different[1] != first[1]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == outside


@pytest.mark.parametrize("shape", [(128, 64), (300, 90), (37, 211), (256, 128)])
def test_paddleclas_resize_is_pillows_antialiased_bicubic(shape):
    image = noise(*shape)
    expected = np.asarray(Image.fromarray(image).resize((128, 256), Image.BICUBIC))
    np.testing.assert_array_equal(only_op(RESIZE)(image), expected)


def test_paddleclas_flip_mirrors_half_of_the_time():
    image = noise(8, 5)
    op = only_op({"RandFlipImage": None})
    with seeded_generators(0):
        results = [op(image) for _ in range(2000)]
    mirrored = [np.array_equal(result, image[:, ::-1]) for result in results]
    assert 900 < sum(mirrored) < 1100
    assert all(np.array_equal(r, image) for r, m in zip(results, mirrored, strict=True) if not m)


def test_paddleclas_normalization_is_per_channel():
    image = noise(4, 3)
    expected = (image / 255 - np.array(MEAN)) / np.array(STD)
    result = only_op(NORMALIZE)(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


def erase_as_specified(image):
    """Random erasing, written out: one attempt after the other."""
    height, width, _ = image.shape
    if random.random() > 0.5:
        return image
    for _ in range(100):
        area = random.uniform(0.02, 0.4) * height * width
        ratio = random.uniform(0.3, 1 / 0.3)
        h, w = int(round(math.sqrt(area * ratio))), int(round(math.sqrt(area / ratio)))
        if h < height and w < width:
            top, left = random.randint(0, height - h), random.randint(0, width - w)
            for y in range(top, top + h):
                for x in range(left, left + w):
                    image[y, x] = (0.485, 0.456, 0.406)
            return image
    return image


@pytest.mark.parametrize("shape", [(64, 32), (5, 40), (3, 3), (1, 9)])
def test_paddleclas_erasing_is_the_recipes(shape):
    op = only_op(ERASE)
    for draw in range(200):
        image = np.random.default_rng(draw).normal(size=(*shape, 3)).astype(np.float32)
        with seeded_generators(draw):
            expected = erase_as_specified(image.copy())
        with seeded_generators(draw):
            np.testing.assert_array_equal(op(image.copy()), expected)


def test_paddleclas_erasing_statistics():
    op = only_op(ERASE)
    with seeded_generators(0):
        results = [op(np.full((256, 128, 3), 9, np.float32)) for _ in range(2000)]
    masks = [result[:, :, 0] != 9 for result in results]
    shares = np.array([mask.mean() for mask in masks])
    hit = shares > 0
    assert 0.46 < hit.mean() < 0.54
    assert shares[hit].min() > 0.019 and shares[hit].max() < 0.41
    assert any(mask[0].any() for mask in masks) and any(mask[-1].any() for mask in masks)
    assert any(mask[:, 0].any() for mask in masks) and any(mask[:, -1].any() for mask in masks)
    erased = results[int(np.argmax(shares))][masks[int(np.argmax(shares))]]
    np.testing.assert_array_equal(erased, np.broadcast_to(np.float32(MEAN), erased.shape))


def test_whole_recipe_equals_its_slow_description():
    ppcls_ise.register()
    ops = compat.build_transforms(RECIPE)
    for draw in range(20):
        pixels = noise(130, 61, seed=draw)
        with seeded_generators(draw):
            result = pixels
            for op in ops:
                result = op(result)
        with seeded_generators(draw):
            picture = Image.fromarray(pixels).resize((128, 256), Image.BICUBIC)
            if random.randint(0, 1) == 1:
                picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
            canvas = Image.new("RGB", (148, 276))
            canvas.paste(picture, (10, 10))
            top, left = random.randint(0, 20), random.randint(0, 20)
            crop = np.asarray(canvas.crop((left, top, left + 128, top + 256)))
            expected = erase_as_specified((crop / 255 - np.array(MEAN)) / np.array(STD))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=1e-5)
