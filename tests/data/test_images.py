# SPDX-License-Identifier: Apache-2.0
import os
import pickle
import tempfile
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls_ise.data import ImageReadError, images, read_image
from ppcls_ise.data.images import check_image_header
from tests.conftest import without_rights

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


def test_permission_denied_is_said():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "a.png"
        Image.fromarray(PIXELS).save(path)
        path.chmod(0)
        with without_rights(), pytest.raises(ImageReadError, match="permission denied") as caught:
            read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_gray_keeps_its_upper_byte(tmp_path, suffix):
    """Pillow would make white of everything above 255."""
    gray = np.linspace(0, 65535, 40 * 20).reshape(40, 20).astype(np.uint16)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), gray)
    expected = np.array([[[value // 256] * 3 for value in row] for row in gray.tolist()])
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_color_keeps_its_upper_byte(tmp_path, channels):
    values = np.random.default_rng(1).integers(0, 65536, (40, 20, channels)).astype(np.uint16)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), values)  # BGR, or BGRA
    np.testing.assert_array_equal(read_image(path), values[:, :, 2::-1] // 256)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_without_a_known_white_are_refused(tmp_path, kind):
    path = tmp_path / "a.tif"
    Image.fromarray(np.ones((4, 2), kind)).save(path)
    with pytest.raises(ImageReadError, match="32 bits"):
        read_image(path)


# Orientation -> where the stored top left corner is shown: (row, column) of a 2 x 2 picture.
SHOWN_CORNER = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1)} | {
    8: (1, 0)
}


@pytest.mark.parametrize("orientation", SHOWN_CORNER)
@pytest.mark.parametrize("bits", [8, 16])
def test_exif_orientation_is_applied(tmp_path, orientation, bits):
    gray = np.zeros((32, 16), np.uint8 if bits == 8 else np.uint16)
    gray[:16, :8] = np.iinfo(gray.dtype).max
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(gray).save(path, exif=exif)
    image = read_image(path)
    assert image.shape == ((16, 32, 3) if orientation >= 5 else (32, 16, 3))
    row, column = SHOWN_CORNER[orientation]
    height, width = image.shape[0] // 2, image.shape[1] // 2
    assert image[row * height : (row + 1) * height, column * width : (column + 1) * width].min()
    assert image.mean() == 255 / 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientation_changes_nothing(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), PIXELS)


def test_damaged_exif_changes_nothing(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(read_image(path), PIXELS)


def test_one_pixel(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS[:1, :1]).save(path)
    np.testing.assert_array_equal(read_image(path), PIXELS[:1, :1])


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_too_large_is_refused_before_it_is_decoded(tmp_path, side):
    path = tmp_path / "a.png"
    Image.new("1", (side, side)).save(path)
    tracemalloc.start()
    for read in (read_image, check_image_header):
        with pytest.raises(ImageReadError, match="at most 67,108,864 pixels") as caught:
            read(path)
        assert str(path) in str(caught.value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_the_largest_allowed(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    monkeypatch.setattr(images, "MAX_PIXELS", 800)
    assert read_image(path).shape == (40, 20, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 799)
    with pytest.raises(ImageReadError, match="20 x 40 = 800 pixels"):
        read_image(path)


def test_postscript_is_never_run(tmp_path, monkeypatch):
    """Pillow hands it to Ghostscript, whatever the file is called."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(ImageReadError, match="not an image"):
        read_image(path)


def test_a_symbolic_link_to_itself_is_named(tmp_path):
    path = tmp_path / "a.jpg"
    path.symlink_to(path)
    with pytest.raises(ImageReadError, match="symbolic links") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "a.jpg"
    os.mkfifo(path)
    with pytest.raises(ImageReadError, match="no regular file"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "in_message"),
    [
        ("Jürgen 人.png", "Jürgen 人.png"),
        ("a\nb.png", "a\\nb.png"),
        ("\x1b[2J.png", "\\x1b[2J.png"),
        ("\udcff\udcfe.png", "\\udcff\\udcfe.png"),
    ],
)
def test_any_file_name_can_be_read_and_reported_on_one_line(tmp_path, name, in_message):
    path = tmp_path / name
    Image.fromarray(PIXELS).save(path)
    np.testing.assert_array_equal(read_image(path), PIXELS)
    path.write_bytes(b"")
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    message = str(caught.value)
    assert in_message in message and message.isprintable()
    message.encode("utf-8")


def test_error_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(ImageReadError("a.jpg", "the file is empty")))
    assert (error.path, error.reason) == ("a.jpg", "the file is empty")
    assert str(error) == "cannot read image a.jpg: the file is empty"
