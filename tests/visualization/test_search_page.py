# SPDX-License-Identifier: Apache-2.0
"""The pages of a search, as a parser and as a browser sees them."""

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
from PIL import Image

from ppcls_ise.errors import shown
from ppcls_ise.retrieval.calibration import Calibration
from ppcls_ise.retrieval.gallery_search import Match
from ppcls_ise.visualization import search_page
from ppcls_ise.visualization.search_page import Known, page_names, search_pages

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
    known = {images[0]: Known("7", "<b>"), images[1]: Known("7"), images[2]: Known("8", "2")}
    sheet = tmp_path / "out" / "sheet.html"
    size = search_pages(
        sheet,
        images[:2],
        [matches, matches[2:]],
        calibration=CALIBRATION,
        known=known,
        title="<i>",
    )
    assert size == sheet.stat().st_size
    reader = read(sheet)
    allowed = "html head meta title style body h1 h2 p nav a details summary ol li section div"
    assert {tag for tag, _ in reader.tags} <= set(f"{allowed} figure img figcaption span b".split())
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
    figures = [attributes for tag, attributes in reader.tags if tag == "figure"]
    expected = [images[0], *images, images[1], *images[2:]]
    assert [f["title"] for f in figures] == [shown(path) for path in expected]
    # Right and wrong where both people are known, and nowhere else.
    kinds = [f["class"] for f in figures]
    assert kinds == ["query", "right accepted", "right accepted", "wrong", "", "query", "wrong", ""]
    pictures = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert len(pictures) == 8
    for source in pictures:
        head, data = source.split(",", 1)
        assert head == "data:image/jpeg;base64"
        assert max(Image.open(io.BytesIO(base64.b64decode(data))).size) == 192
    # An image leads to its file, whatever its name is made of.
    links = [a["href"] for tag, a in reader.tags if tag == "a" and a["href"].startswith("file:")]
    assert [url2pathname(urlsplit(link).path) for link in links] == expected
    text = "".join(reader.text)
    for words in ("0.710", "0.640", "0.639", "-0.200", "<i>", "camera <b>", "Query 2 of 2"):
        assert words in text
    for words in ("labels <b>", "score 0.710 reaches 0.640: same person", "0.639 is below 0.640"):
        assert words in text
    assert "pseudo" not in text
    (policy,) = [a for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'")


def test_what_is_not_known_has_no_color_and_a_threshold_of_clusters_says_so(tmp_path, images):
    sheet = tmp_path / "sheet.html"
    search_pages(sheet, images[:1], [[Match(images[1], 0.99)]])
    reader = read(sheet)
    assert [a["class"] for tag, a in reader.tags if tag == "figure"] == ["query", ""]
    text = "".join(reader.text)
    assert "No threshold has been calibrated" in text and "No colors" in text

    guessed = replace(CALIBRATION, source="pseudo-labels (9 clusters)")
    search_pages(sheet, images[:1], [[Match(images[1], 0.99)]], calibration=guessed)
    assert "".join(read(sheet).text).count("chosen on pseudo-labels") == 2  # summary and verdict
    assert "chosen on pseudo-labels" in guessed.verdict(0.1)


def test_a_vanished_image_is_shown_by_its_reason(tmp_path, images):
    sheet = tmp_path / "sheet.html"
    gone = str(tmp_path / "gone \udcff <b>.jpg")
    search_pages(sheet, [images[0], gone], [[Match(gone, 0.5)], []])
    text = "".join(read(sheet).text)
    assert "the file does not exist" in text and "gone \\udcff <b>.jpg" in text
    assert "No image of the gallery is left" in text


def test_many_queries_go_to_several_pages(tmp_path, images, monkeypatch):
    monkeypatch.setattr(search_page, "IMAGES_PER_PAGE", 8)
    results = [[Match(images[0], 0.5)] * 3] * 5  # two queries a page
    sheet = tmp_path / "a b.html"
    files = page_names(sheet, 5, 3)
    assert [file.name for file in files] == ["a b.html", "a b-2.html", "a b-3.html"]
    total = search_pages(sheet, images[:1] * 5, results)
    assert total == sum(file.stat().st_size for file in files)
    assert sorted(tmp_path.glob("*.html")) == sorted(files)
    places = {}
    links = []
    for file in files:
        reader = read(file)
        assert sum(tag == "img" for tag, _ in reader.tags) <= 8
        places |= {(file.name, a["id"]): file for tag, a in reader.tags if tag == "section"}
        links += [(file.name, a["href"]) for tag, a in reader.tags if tag == "a"]
    assert [number for _, number in places] == ["q1", "q2", "q3", "q4", "q5"]
    steps = [
        (unquote(target.split("#")[0]) or name, target.split("#")[1])
        for name, target in links
        if "#" in target
    ]
    assert set(steps) == set(places)
    assert {unquote(target) for _, target in links if target.endswith(".html")} == {
        file.name for file in files
    }


@pytest.mark.slow
def test_ten_matches_stand_in_one_row_and_nothing_is_loaded(tmp_path, images, browser):
    sheet = tmp_path / "sheet.html"
    matches = [Match(images[i % 4], 0.9 - i / 20) for i in range(10)]
    search_pages(sheet, images[:3], [matches] * 3, known={images[0]: Known("1", "3")})
    for width in (1400, 390):
        page = browser.new_page(viewport={"width": width, "height": 900})
        requests, errors = [], []
        page.on("request", lambda request, seen=requests: seen.append(request.url))
        page.on("console", lambda message, seen=errors: seen.append(message.text))
        page.on("pageerror", lambda error, seen=errors: seen.append(str(error)))
        page.on("dialog", lambda dialog, seen=errors: seen.append(dialog.message))
        page.goto(sheet.as_uri())
        assert [r for r in requests if not r.startswith("data:")] == [sheet.as_uri()]
        assert errors == []
        boxes = [figure.bounding_box() for figure in page.query_selector_all("#q1 figure")]
        assert len(boxes) == 11 and max(box["x"] + box["width"] for box in boxes) <= width
        assert len({box["y"] for box in boxes}) == (1 if width == 1400 else 4)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("#q1 nav a:has-text('next')")
        assert page.evaluate("location.hash") == "#q2"
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
        page.close()
