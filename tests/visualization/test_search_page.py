# SPDX-License-Identifier: Apache-2.0
"""The HTML sheet as a parser sees it."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ppcls_ise.retrieval.calibration import Calibration
from ppcls_ise.retrieval.gallery_search import Match
from ppcls_ise.visualization.search_page import contact_sheet

NASTY = ['a"b.png', "<script>alert(1)<.png", "'><img src=x onerror=alert(1)>.png", "new\nline.png"]
CALIBRATION = Calibration(0.64, 0.01, 0.2, 5000, 300, "labels <b>", ())


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return reader


@pytest.fixture
def images(tmp_path):
    paths = []
    for i, name in enumerate(NASTY):
        path = tmp_path / name
        Image.fromarray(np.full((300, 100 + i, 3), 60 * i, np.uint8)).save(path, format="PNG")
        paths.append(str(path))
    return paths


def test_names_are_text_and_images_are_inside(tmp_path, images):
    scores = [0.71, 0.64, 0.6399, -0.2]
    matches = [Match(path, score) for path, score in zip(images, scores, strict=True)]
    sheet = tmp_path / "out" / "sheet.html"
    contact_sheet(sheet, images[:2], [matches, matches[2:]], calibration=CALIBRATION, title="<i>")
    reader = read(sheet)
    allowed = "html head meta title style body h1 p section div figure img figcaption b".split()
    assert {tag for tag, _ in reader.tags} <= set(allowed)
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
    figures = [attributes for tag, attributes in reader.tags if tag == "figure"]
    assert [f["title"] for f in figures] == [images[0], *images, images[1], *images[2:]]
    kinds = [f["class"] for f in figures]
    assert kinds == ["query", "same", "same", "other", "other", "query", "other", "other"]
    pictures = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert len(pictures) == 8
    for source in pictures:
        head, data = source.split(",", 1)
        assert head == "data:image/jpeg;base64"
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) == 192
    text = "".join(reader.text)
    for words in ("1: 0.710, same", "2: 0.640, same", "3: 0.639, below", "4: -0.200", "<i>"):
        assert words in text
    for words in ("labels <b>", "score 0.710 reaches 0.640: same person", "0.639 is below 0.640"):
        assert words in text
    (policy,) = [a for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'")
    assert "http" not in "".join(v for _, a in reader.tags for k, v in a.items() if k == "src")


def test_without_a_threshold_nothing_is_green(tmp_path, images):
    sheet = tmp_path / "sheet.html"
    contact_sheet(sheet, images[:1], [[Match(images[1], 0.99)]])
    reader = read(sheet)
    assert [a["class"] for tag, a in reader.tags if tag == "figure"] == ["query", "unknown"]
    assert "No threshold has been calibrated" in "".join(reader.text)


def test_a_vanished_image_is_shown_by_its_reason(tmp_path, images):
    sheet = tmp_path / "sheet.html"
    gone = str(tmp_path / "gone \udcff <b>.jpg")
    contact_sheet(sheet, images[:1], [[Match(gone, 0.5)]])
    text = "".join(read(sheet).text)
    assert "the file does not exist" in text and "gone \\udcff <b>.jpg" in text
