# SPDX-License-Identifier: Apache-2.0
"""The page of a clustering in a real browser, opened from disk."""

import csv

import numpy as np
import pytest
from PIL import Image

from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.clustering.sample_graph import GraphSettings
from ppcls_ise.visualization.cluster_page import write_cluster_page

NASTY = ["<script>alert(1)<", 'it\'s "quoted"', "</script><b>", "=1+1", "a,b;c", "{{ 7*7 }}", "ü漢"]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(7), 9)
    labels[::9] = -1
    directions = generator.standard_normal((7, 16))
    features = directions[np.arange(63) // 9] + 0.1 * generator.standard_normal((63, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    paths = []
    for i in range(63):
        name = NASTY[i // 9].replace("/", "\u2215")
        path = folder / "images" / f"{name} {i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = generator.integers(0, 255, (64, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(str(path))
    record = ClusteringRecord.describe(
        paths, features.astype(np.float32), labels, camids=np.arange(63) % 3
    )
    settings = GraphSettings(0.5, 4, {"k1": 10, "k2": 3})
    write_cluster_page(
        folder / "page.html",
        record,
        settings,
        title='<script>"&',
        history=[
            {"epoch": 1.0, "clusters": 5.0, "stability": None},
            {"epoch": 2.0, "clusters": 7.0, "stability": 0.9},
        ],
    )
    return folder / "page.html"


@pytest.fixture
def opened(browser, page_file):
    """The page, and what went wrong or out while it was used."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    trouble = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: trouble.append("a name was executed") or dialog.dismiss())
    own = page_file.as_uri()
    page.on(
        "request",
        lambda request: request.url.startswith(("data:", own, "blob:"))
        or trouble.append(request.url),
    )
    page.goto(own)
    yield page
    assert trouble == []
    page.close()


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window(opened, width):
    opened.set_viewport_size({"width": width, "height": 900})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.locator("h1").inner_text() == '<script>"&'


def test_pictures_come_as_one_scrolls(opened):
    first = opened.locator(".card .crop img").first
    first.scroll_into_view_if_needed()
    opened.wait_for_function("document.querySelector('.card .crop img').naturalWidth > 0")
    assert opened.locator("#curves img").first.evaluate("image => image.naturalWidth") > 100


def test_search_filter_and_sort(opened):
    assert opened.locator(".card:visible").count() == 7
    opened.fill("#search", "QUOTED")
    assert opened.locator(".card:visible").count() == 1
    assert opened.locator(".card:visible .crop").first.get_attribute("title").startswith("it's \"")
    opened.fill("#search", "no such name")
    assert opened.locator("#count").inner_text() == "0 of 7 clusters"
    opened.fill("#search", "")
    opened.select_option("#sort", "cluster:1")
    numbers = opened.locator(".card h3").all_inner_texts()
    assert numbers == [f"Cluster {i}" for i in range(7)]
    opened.select_option("#filter", "several parts")
    shown = opened.locator(".card:visible")
    assert all("several parts" in text for text in shown.all_inner_texts())


def test_corrections_are_saved_as_csv(opened, tmp_path):
    opened.select_option("#sort", "cluster:1")
    cards = opened.locator(".card")
    cards.nth(3).get_by_text("Same person as").click()
    cards.nth(1).get_by_text("Same person as").click()
    cards.nth(2).get_by_text("Several people").click()
    cards.nth(4).get_by_text("No person").click()
    opened.check("#marking")
    cards.nth(1).locator(".crop").first.click()
    assert opened.locator("#marked").inner_text() == "4 corrections"
    with opened.expect_download() as download:
        opened.click("#export")
    download.value.save_as(tmp_path / "corrections.csv")
    with open(tmp_path / "corrections.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["action"], row["cluster"], row["with"]) for row in rows] == [
        ("merge", "1", "3"),
        ("split", "2", ""),
        ("remove", "4", ""),
        ("remove", "1", ""),
    ]
    assert 'it\'s "quoted"' in rows[3]["path"] and rows[3]["path"].startswith("/")
    cards.nth(2).get_by_text("Several people").click()  # taken back
    assert opened.locator("#marked").inner_text() == "3 corrections"


def test_a_dot_of_the_map_shows_its_crop(opened):
    opened.locator("#plot").scroll_into_view_if_needed()
    assert opened.locator("#plot circle").count() == 63 + 1
    opened.locator("#plot circle").first.hover(force=True)
    assert "cluster" in opened.locator("#pointed figcaption").inner_text()
    assert opened.locator("#pointed img").evaluate("image => image.src").startswith("data:image")
    options = opened.locator("#color option").all_inner_texts()
    assert options == ["cluster", "camera"]  # identities and tracklets are unknown here
