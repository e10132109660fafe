# SPDX-License-Identifier: Apache-2.0
"""The generator of tracklets: same seed, same bytes; the layout of MARS; walks and slips."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

from ppcls_ise.errors import DataError
from ppcls_ise.synthetic.tracklets import (
    SLIPS_FILE,
    TrackletCounts,
    TrackletParameters,
    make_tracklets,
    plan_tracklets,
)

LITE: dict[str, Any] = {
    "num_train_ids": 5,
    "num_test_ids": 3,
    "mean_length": 6,
    "height": 32,
    "width": 16,
    "slips": 0.5,
}
TINY = {**LITE, "num_train_ids": 2, "num_test_ids": 1, "mean_length": 3}
NAME = re.compile(r"(\d{4})/(\d{4})C([1-9])T(\d{4})F(\d{3})\.jpg")


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrackletCounts]:
    out = tmp_path_factory.mktemp("tracklets") / "lite"
    return out, make_tracklets(out, **LITE)


def test_layout_is_that_of_mars(lite: tuple[Path, TrackletCounts]) -> None:
    out, counts = lite
    for split, total in (("bbox_train", counts.train), ("bbox_test", counts.test)):
        paths = sorted((out / split).rglob("*.jpg"))
        assert len(paths) == total > 0
        for path in paths:
            match = NAME.fullmatch(str(path.relative_to(out / split)))
            assert match and match[1] == match[2]
            image = cv2.imread(str(path))
            assert image is not None and image.shape == (32, 16, 3) and image.std() > 2.0


@pytest.mark.parametrize("kind", ["train", "test"])
def test_lists_of_mars_name_every_frame_and_tracklet(
    lite: tuple[Path, TrackletCounts], kind: str
) -> None:
    out, counts = lite
    names = (out / "info" / f"{kind}_name.txt").read_text().split()
    assert sorted(names) == sorted(path.name for path in (out / f"bbox_{kind}").rglob("*.jpg"))
    table = loadmat(out / "info" / f"tracks_{kind}_info.mat")[f"track_{kind}_info"].astype(int)
    assert len(table) == getattr(counts, f"{kind}_tracklets")
    assert table[0, 0] == 1 and table[-1, 1] == len(names)
    assert (table[1:, 0] == table[:-1, 1] + 1).all()
    for first, last, pid, camera in table:
        stems = {name.split("F")[0] for name in names[first - 1 : last]}
        assert len(stems) == 1 and stems.pop().startswith(f"{pid:04d}C{camera}T")


def test_every_query_has_a_match_under_another_camera(
    lite: tuple[Path, TrackletCounts],
) -> None:
    info = lite[0] / "info"
    table = loadmat(info / "tracks_test_info.mat")["track_test_info"].astype(int)
    queries = loadmat(info / "query_IDX.mat")["query_IDX"].ravel().astype(int) - 1
    pairs = table[queries, 2:].tolist()
    assert sorted(pairs) == np.unique(table[:, 2:], axis=0).tolist()
    assert all(any(p == pid and c != camera for p, c in pairs) for pid, camera in pairs)


def test_slips_are_listed(lite: tuple[Path, TrackletCounts]) -> None:
    out, counts = lite
    rows = [line.split(",") for line in (out / SLIPS_FILE).read_text().split()[1:]]
    assert counts.slips == len({name.split("F")[0] for name, _ in rows}) > 0
    for name, shown in rows:
        assert (out / name).is_file() and name.startswith("bbox_train/")
        assert Path(name).name[:4] != shown and 1 <= int(shown) <= LITE["num_train_ids"]


def test_share_of_slips_is_the_stated_one() -> None:
    plan = plan_tracklets(TrackletParameters(num_train_ids=2000, slips=0.2))
    long = [one for one in plan if one.folder == "bbox_train" and len(one.shown) >= 4]
    slipped = [one for one in long if len(set(one.shown)) == 2]
    assert len(slipped) / len(long) == pytest.approx(0.2, abs=0.02)
    assert all(one.shown[0] == one.pid != one.shown[-1] for one in slipped)
    # Each tracker slips once.
    assert all(
        sum(a != b for a, b in zip(s.shown, s.shown[1:], strict=False)) == 1 for s in slipped
    )
    mean = np.mean([len(one.shown) for one in plan])
    assert mean == pytest.approx(TrackletParameters.mean_length, rel=0.1)


def test_frames_of_a_tracklet_are_nearly_equal_and_walks_are_not(tmp_path: Path) -> None:
    make_tracklets(tmp_path / "set", num_train_ids=8, num_test_ids=0, height=32, width=16)
    images: list[np.ndarray] = []
    names: list[str] = []
    for path in sorted((tmp_path / "set" / "bbox_train").rglob("*.jpg")):
        image = cv2.imread(str(path))
        assert image is not None
        images.append(image.reshape(-1).astype(np.float32))
        names.append(path.name.split("F")[0])
    pixels, tracklet = np.array(images), np.unique(names, return_inverse=True)[1]
    gaps = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    nearest = gaps.argmin(axis=1)
    assert (tracklet[nearest] == tracklet).mean() > 0.9


def test_same_seed_same_bytes_and_other_seed_differs(tmp_path: Path) -> None:
    counts = make_tracklets(tmp_path / "a", **TINY)
    make_tracklets(tmp_path / "b", **TINY)
    first = hashes(tmp_path / "a")
    assert hashes(tmp_path / "b") == first
    assert make_tracklets(tmp_path / "a", **TINY) == replace(counts, reused=True)
    make_tracklets(tmp_path / "c", seed=1, **TINY)
    other = hashes(tmp_path / "c")
    images = {value for name, value in first.items() if name.endswith(".jpg")}
    assert not images & set(other.values())


def test_bytes_do_not_depend_on_the_other_people(tmp_path: Path) -> None:
    options = {**TINY, "slips": 0.0}
    make_tracklets(tmp_path / "few", **options)
    make_tracklets(tmp_path / "more", **{**options, "num_train_ids": 3})
    few, more = hashes(tmp_path / "few"), hashes(tmp_path / "more")
    train = {name: value for name, value in few.items() if name.startswith("bbox_train")}
    assert train and train.items() <= more.items()


@pytest.mark.parametrize("people", [(1, 0), (1, 1), (0, 1)])
def test_smallest_sets(tmp_path: Path, people: tuple[int, int]) -> None:
    options = {**TINY, "num_train_ids": people[0], "num_test_ids": people[1]}
    if not people[0]:
        with pytest.raises(DataError, match="num_train_ids"):
            make_tracklets(tmp_path / "set", **options)
        return
    counts = make_tracklets(tmp_path / "set", **options)
    assert counts.slips == 0  # there is nobody to slip to
    assert (counts.test > 0) == bool(people[1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("num_cameras", 1),
        ("num_cameras", 10),
        ("mean_length", 1),
        ("mean_length", 61),
        ("slips", 1.5),
        ("light_gap", -0.1),
        ("look_alikes", float("nan")),
    ],
)
def test_bad_parameters_are_refused(tmp_path: Path, key: str, value: float) -> None:
    with pytest.raises(DataError, match=key):
        make_tracklets(tmp_path / "set", **{**TINY, key: value})
    assert not list(tmp_path.iterdir())
