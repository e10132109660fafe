# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest
from PIL import Image

from ppcls_ise.data import ImageReadError, images, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.flags.writeable
    np.testing.assert_array_equal(image, PIXELS)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_are_decoded(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    assert read_image(str(path)).shape == (40, 20, 3)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_color_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a.tif"
    Image.fromarray(PIXELS).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (40, 20, 3)
    if mode == "L":
        assert (image == image[:, :, :1]).all()


def test_suffix_does_not_matter(tmp_path):
    path = tmp_path / "really_png.jpg"
    Image.fromarray(PIXELS).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), PIXELS)


def _damaged(tmp_path, kind):
    path = tmp_path / f"{kind}.jpg"
    Image.fromarray(PIXELS).save(path)
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "header only":
        path.write_bytes(content[:10])
    elif kind == "text":
        path.write_text("no image")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "does not exist"),
        ("empty", "empty"),
        ("truncated", "truncated"),
        ("header only", None),
        ("text", "not an image"),
        ("folder", None),
    ],
)
def test_unreadable_file_is_named_with_its_cause(tmp_path, kind, reason):
    path = _damaged(tmp_path, kind)
    with pytest.raises(ImageReadError, match=reason) as caught:
        read_image(path)
    assert caught.value.path == str(path) and str(path) in str(caught.value)
    assert caught.value.reason
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_any_cut_file_is_refused_or_complete(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            image = read_image(path)
        except ImageReadError:
            continue
        assert image.shape == PIXELS.shape


def test_permission_denied_is_said(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images, "open", refuse, raising=False)  # root may read everything
    with pytest.raises(ImageReadError, match="permission denied"):
        read_image(tmp_path / "a.jpg")


def test_error_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(ImageReadError("a.jpg", "the file is empty")))
    assert (error.path, error.reason) == ("a.jpg", "the file is empty")
    assert str(error) == "cannot read image a.jpg: the file is empty"
