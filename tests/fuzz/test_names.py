# SPDX-License-Identifier: Apache-2.0
"""Whatever files and lists are called and hold: records, or an error that names the place."""

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls_ise.data import (
    MarketStyleDataset,
    UnlabeledFolder,
    UnsupervisedDukeMTMC,
    UnsupervisedMarket1501,
    UnsupervisedMSMT17,
)
from ppcls_ise.data.images import is_image_name
from ppcls_ise.data.naming import numbered
from ppcls_ise.data.reid_dataset import _column
from ppcls_ise.errors import DataError
from tests.fuzz.harness import fuzz, nothing_happens

pytestmark = pytest.mark.long

DIGITS = st.text("0123456789٣-", max_size=25)
TEXT = st.text(st.characters(exclude_characters="/\0", codec=None), max_size=12)
MARKET = st.builds("{}{}_c{}{}.jpg".format, st.sampled_from(["", "-"]), DIGITS, DIGITS, TEXT)
NAMES = st.lists(MARKET | TEXT.map(lambda text: f"{text}.png") | TEXT, max_size=5, unique=True)
PARTS = st.sampled_from(["0001", "..", "", ".", "C:", "__MACOSX", "~", "0001_000_01_a.jpg", "\\"])
LINE = st.builds(
    "{} {}".format,
    st.lists(PARTS | TEXT, max_size=4).map("/".join)
    | st.builds("0001/{}_{}_{}_x.jpg".format, DIGITS, DIGITS, DIGITS),
    DIGITS | TEXT,
)


def make(cls, split="bounding_box_train"):
    dataset = cls.__new__(cls)
    dataset.cls_label_path = split
    return dataset


def check_records(records):
    for record in records:
        assert record.pid >= 0 and record.camid >= 0
    for column in ([r.pid for r in records], [r.camid for r in records]):
        assert _column(column).dtype == np.int64


@pytest.mark.parametrize(
    "cls", [MarketStyleDataset, UnsupervisedMarket1501, UnsupervisedDukeMTMC, UnsupervisedMSMT17]
)
@fuzz
@given(names=NAMES)
def test_market_names(cls, names):
    with mock.patch("os.listdir", return_value=names), mock.patch("os.path.isdir") as is_folder:
        is_folder.return_value = True
        try:
            with nothing_happens():
                records = make(cls).read_split("/data")
        except DataError as error:
            assert "/data/" in str(error) and len(str(error).splitlines()) == 1
        else:
            check_records([record for record in records if record.pid >= 0])
            assert {os.path.basename(r.path) for r in records} <= set(filter(is_image_name, names))


@fuzz
@given(pid=st.integers(0, 10**9 - 1), camera=st.integers(1, 10**9 - 1), rest=TEXT)
def test_a_market_name_gives_back_its_numbers(pid, camera, rest):
    name = f"{pid:04d}_c{camera}s{rest}.jpg"
    with mock.patch("os.listdir", return_value=[name]):
        (record,) = make(MarketStyleDataset).read_split("/data")
    assert (record.pid, record.camid) == (pid, camera - 1)


@pytest.fixture(scope="module")
def list_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "list_train.txt"
    path.write_bytes(b"0001/0001_000_01_a.jpg 1\n")
    assert len(make(UnsupervisedMSMT17)._read_list(str(path), "/data/train")) == 1
    return path


@fuzz
@given(content=st.binary(max_size=100) | st.lists(LINE, max_size=4).map("\n".join))
def test_msmt17_lists(list_file, content):
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    list_file.write_bytes(content)
    try:
        with nothing_happens():
            records = make(UnsupervisedMSMT17)._read_list(str(list_file), "/data/train")
    except DataError as error:
        assert "/data/train" in str(error) or "list_train.txt" in str(error)
        assert len(str(error).splitlines()) == 1
    else:
        check_records(records)
        for record in records:
            assert os.path.normpath(record.path).startswith("/data/train/")


@pytest.mark.parametrize(
    "rule",
    [
        {"camera_from_folder": True},
        {"camera_pattern": r"cam(\d+)"},
        {"camera_pattern": "(.)?"},
        {"tracklet_pattern": r"(\w)|(\d)", "camera_pattern": "(.)"},
        {"tracklet_from_folder": True, "identity_pattern": "(.)"},
        {},
    ],
)
@fuzz
@given(names=st.lists(st.lists(TEXT, min_size=1, max_size=3).map("/".join), max_size=5))
def test_rules_of_folders(rule, names):
    with mock.patch.object(UnlabeledFolder, "find_records", return_value=[]):
        dataset = UnlabeledFolder("/data", **rule)
    paths = [os.path.join("/data", *(part for part in name.split("/") if part)) for name in names]
    try:
        with nothing_happens():
            found = dataset.names_of(paths, "/data")
            numbers, _ = numbered(found["camera"])
    except DataError as error:
        assert "/data" in str(error) and len(str(error).splitlines()) == 1
    else:
        assert all(len(column) == len(names) for column in found.values())
        if None not in numbers:
            distinct = len(set(numbers))
            assert sorted(set(numbers)) == list(range(distinct))
            assert distinct <= len(set(found["camera"]))
