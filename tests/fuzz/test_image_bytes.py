# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes an image file has: pixels, or an error that names it."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ppcls_ise.data import ImageReadError, read_image
from ppcls_ise.data.images import check_image_header
from tests.fuzz.harness import damaged, fuzz, nothing_happens

pytestmark = pytest.mark.long


def encoded() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    results = []
    for form, modes in {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "L", "P", "RGBA", "I;16", "1"),
        "WEBP": ("RGB", "RGBA"),
        "BMP": ("RGB", "P"),
        "GIF": ("P",),
        "TIFF": ("RGB", "I;16"),
        "PPM": ("RGB", "L"),
    }.items():
        for mode in modes:
            image = Image.fromarray(pixels)
            sixteen = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
            image = sixteen if mode == "I;16" else image.convert(mode)
            target = io.BytesIO()
            image.save(target, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
            results.append(target.getvalue())
    return results


SAMPLES = encoded()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "case.jpg"
    for content in SAMPLES:
        path.write_bytes(content)
        assert read_image(path).dtype == np.uint8
    return path


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read in (check_image_header, read_image):
        try:
            with nothing_happens():
                image = read(path)
        except ImageReadError as error:
            assert str(path) in str(error)
            assert len(str(error).splitlines()) == 1 + (error.reason or "").count("\n")
        else:
            assert read is check_image_header or (
                image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            )


@fuzz
@given(content=st.binary(max_size=100), start=st.sampled_from([s[:12] for s in SAMPLES] + [b""]))
def test_any_bytes(path, content, start):
    check(path, start + content)


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(content=damaged(SAMPLES))
def test_damaged_images(path, content):
    check(path, content)
