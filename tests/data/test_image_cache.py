# SPDX-License-Identifier: Apache-2.0
"""The image cache: the uncached bytes, and never those of another image."""

import json
import multiprocessing
import os

import numpy as np
import pytest
from PIL import Image

import ppcls_ise
from ppcls_ise.data import UnlabeledFolder
from ppcls_ise.data import image_cache as module
from ppcls_ise.data.images import ImageReadError
from ppcls_ise.errors import DataError

RESIZE = {"ResizeImage": {"size": [16, 32], "interpolation": "bicubic", "backend": "pil"}}
FLIP = {"RandFlipImage": {"flip_code": 1}}
CROP = {"RandomPadCrop": {"padding": 3}}


@pytest.fixture(autouse=True, scope="module")
def registered():
    ppcls_ise.register()


def save(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 20, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(6):
        save(images / f"{i}.jpg" if i % 2 else images / f"{i}.png", i)
    return images


def dataset(folder, cache=None, ops=(RESIZE, FLIP, CROP)):
    data = UnlabeledFolder(str(folder), transform_ops=list(ops))
    data.seed, data.epoch = 5, 2
    if cache:
        data.cache_images(str(cache))
    return data


def items(data, draw=True):
    return [data[(i, i + 7) if draw else i][0].tobytes() for i in range(len(data))]


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded."""
    names = []
    from ppcls_ise.data import reid_dataset

    def read(path):
        names.append(os.path.basename(path))
        return plain(path)

    plain = module.read_image
    monkeypatch.setattr(module, "read_image", read)
    monkeypatch.setattr(reid_dataset, "read_image", read)
    return names


def test_the_same_bytes_without_decoding_again(folder, tmp_path, decoded):
    expected = items(dataset(folder))
    del decoded[:]
    cached = dataset(folder, tmp_path / "cache")
    assert len(decoded) == 6
    assert items(cached) == expected == items(cached)
    assert items(dataset(folder, tmp_path / "cache")) == expected
    view = cached.view([RESIZE])
    assert items(view, draw=False) == items(dataset(folder, ops=[RESIZE]), draw=False)
    assert len(decoded) == 6 + 6  # the last line's uncached data set
    assert len(list((tmp_path / "cache").glob("*.images"))) == 1


def test_an_item_may_be_changed_in_place(folder, tmp_path):
    cache = dataset(folder, tmp_path / "cache")._cache
    cache.get(0)[:] = 0
    assert cache.get(0).any()


def test_other_resizes_have_caches_of_their_own(folder, tmp_path):
    other = {"ResizeImage": RESIZE["ResizeImage"] | {"interpolation": "nearest"}}
    first = items(dataset(folder, tmp_path / "c", ops=[RESIZE]), draw=False)
    second = items(dataset(folder, tmp_path / "c", ops=[other]), draw=False)
    assert first != second
    assert second == items(dataset(folder, ops=[other]), draw=False)


def test_operators_without_one_size_are_not_cached(folder, tmp_path):
    for ops in ([CROP, RESIZE], [{"ResizeImage": {"resize_short": 16}}]):
        data = dataset(folder, tmp_path / "cache", ops=ops)
        assert data._cache is None and data[(0, 1)][0].any()


def test_a_changed_file_counts_at_once_and_in_the_next_run(folder, tmp_path, decoded):
    data = dataset(folder, tmp_path / "cache")
    old = items(data)
    save(folder / "2.png", 99)
    expected = items(dataset(folder))
    assert expected != old
    assert items(data) == expected  # the running one
    del decoded[:]
    assert items(dataset(folder, tmp_path / "cache")) == expected
    assert decoded == ["2.png"]


def test_the_same_size_at_another_time_is_another_file(folder, tmp_path):
    path = folder / "0.png"
    data = dataset(folder, tmp_path / "cache")
    state = path.stat()
    content = path.read_bytes()
    Image.fromarray(np.zeros((40, 20, 3), np.uint8)).save(path)
    black = path.read_bytes()
    path.write_bytes(black + b"\0" * (len(content) - len(black)))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert path.stat().st_size == state.st_size
    assert items(data) == items(dataset(folder))


def test_unreadable_and_missing_images_behave_as_without_a_cache(folder, tmp_path, decoded):
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:200])
    data = dataset(folder, tmp_path / "cache")
    image, label, _ = data[1]
    assert label[2] == 0 and not image.any()
    with pytest.raises(ImageReadError):
        data[1, 0]
    (folder / "2.png").unlink()
    assert data[2][1][2] == 0
    del decoded[:]
    again = module.ImageCache(tmp_path / "cache", data.images, RESIZE["ResizeImage"], data._ops[0])
    assert decoded == [] and again.get(1) is None and again.get(2) is None
    save(folder / "1.jpg", 1)
    assert dataset(folder, tmp_path / "cache")[1][1][2] == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content[100:],
        lambda content: b"\x89PNG" + bytes(200),
        lambda content: content.replace(b'"shape": [6', b'"shape": [5'),
    ],
)
def test_a_damaged_cache_is_made_anew(damage, folder, tmp_path, caplog):
    expected = items(dataset(folder, tmp_path / "cache"))
    (file,) = (tmp_path / "cache").glob("*.images")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert items(dataset(folder, tmp_path / "cache")) == expected
    assert "cannot be used and is made anew" in caplog.text
    assert file.read_bytes() == whole


def test_damaged_pixels_are_never_served(folder, tmp_path):
    expected = items(dataset(folder, tmp_path / "cache"))
    (file,) = (tmp_path / "cache").glob("*.images")
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    assert items(dataset(folder, tmp_path / "cache")) == expected


def test_a_foreign_file_under_the_name(folder, tmp_path):
    """A whole cache, but of other images: nothing in it counts."""
    data = dataset(folder, tmp_path / "cache")
    other = tmp_path / "other"
    other.mkdir()
    for i in range(6):
        save(other / f"{i}.png", i + 50)
    foreign = dataset(other, tmp_path / "cache2")
    os.replace(foreign._cache.file, data._cache.file)
    assert items(dataset(folder, tmp_path / "cache")) == items(dataset(folder))


def test_a_failed_build_leaves_the_old_file(folder, tmp_path):
    old = dataset(folder, tmp_path / "cache")._cache
    before = old.file.read_bytes()
    save(folder / "0.png", 77)
    sizes = iter(range(30, 60))
    with pytest.raises(DataError, match=r"Global\.image_cache"):
        module.ImageCache(
            tmp_path / "cache",
            old._paths,
            RESIZE["ResizeImage"],
            lambda pixels: np.zeros((next(sizes), 5, 3), np.uint8),
        )
    assert old.file.read_bytes() == before
    assert not list((tmp_path / "cache").glob("*.tmp"))


def _digest_of_items(arguments):
    ppcls_ise.register()
    return items(dataset(*arguments))


@pytest.mark.slow
def test_processes_that_start_together_agree(folder, tmp_path):
    expected = items(dataset(folder))
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = pool.map(_digest_of_items, [(folder, tmp_path / "cache")] * 3)
    assert results == [expected] * 3


def test_the_index_is_plain_json(folder, tmp_path):
    index = module._read_index(dataset(folder, tmp_path / "cache")._cache.file)
    assert index["shape"] == [6, 32, 16, 3]
    assert json.loads(json.dumps(index)) == index
