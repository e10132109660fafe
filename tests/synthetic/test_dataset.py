# SPDX-License-Identifier: Apache-2.0
"""The generator of synthetic pedestrians: same seed, same bytes; the layout of Market-1501."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ppcls_ise.errors import DataError
from ppcls_ise.synthetic import dataset
from ppcls_ise.synthetic.cameras import make_cameras
from ppcls_ise.synthetic.dataset import Counts, Parameters, make_synthetic, plan_images
from ppcls_ise.synthetic.figure import Placement, Pose, draw_person
from ppcls_ise.synthetic.people import sample_person

LITE: dict[str, Any] = {
    "num_train_ids": 8,
    "num_test_ids": 6,
    "images_per_id": 8,
    "height": 48,
    "width": 24,
}
TINY: dict[str, Any] = {
    "num_train_ids": 2,
    "num_test_ids": 2,
    "images_per_id": 4,
    "height": 32,
    "width": 16,
}
NAME = re.compile(r"(-1|\d{4})_c([1-9])s1_(\d{6})_(\d{2})\.jpg")
ROOT = Path(__file__).resolve().parents[2]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.jpg"))
    }


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counts]:
    out = tmp_path_factory.mktemp("synthetic") / "lite"
    return out, make_synthetic(out, **LITE)


def read_names(out: Path, folder: str) -> list[tuple[int, int]]:
    matches = [NAME.fullmatch(path.name) for path in sorted((out / folder).iterdir())]
    return [(int(match[1]), int(match[2])) for match in matches if match]


def test_layout(lite: tuple[Path, Counts]) -> None:
    out, counts = lite
    for folder in dataset.FOLDERS:
        assert len(read_names(out, folder)) == len(list((out / folder).iterdir())) > 0
    train = {pid for pid, _ in read_names(out, "bounding_box_train")}
    query = read_names(out, "query")
    gallery = read_names(out, "bounding_box_test")
    assert train == set(range(1, 9))
    assert {pid for pid, _ in query} == set(range(9, 15))
    assert {pid for pid, _ in gallery} == {-1, 0, *range(9, 15)}
    assert len(query) == len(set(query)) == counts.query  # one per identity and camera
    assert counts.train == 8 * 8
    assert counts.gallery == len(gallery)
    assert counts.distractors == sum(pid == 0 for pid, _ in gallery) > 0
    assert counts.junk == sum(pid == -1 for pid, _ in gallery) > 0
    assert counts.total == len(hashes(out))
    assert not counts.reused


def test_every_query_has_a_match_under_another_camera(lite: tuple[Path, Counts]) -> None:
    cameras = defaultdict(set)
    for pid, camera in read_names(lite[0], "bounding_box_test"):
        cameras[pid].add(camera)
    assert all(cameras[pid] - {camera} for pid, camera in read_names(lite[0], "query"))


def test_images_are_readable_and_differ(lite: tuple[Path, Counts]) -> None:
    out, counts = lite
    digests = hashes(out)
    assert len(set(digests.values())) == counts.total
    for name in digests:
        image = cv2.imread(str(out / name))
        assert image is not None and image.shape == (48, 24, 3)
        assert image.std() > 4.0


def test_same_seed_same_bytes_and_other_seed_differs(
    lite: tuple[Path, Counts], tmp_path: Path
) -> None:
    first = hashes(lite[0])
    make_synthetic(tmp_path / "again", **LITE)
    assert hashes(tmp_path / "again") == first
    make_synthetic(tmp_path / "other", seed=1, **LITE)
    assert not set(hashes(tmp_path / "other").values()) & set(first.values())


def test_bytes_do_not_depend_on_the_other_images(tmp_path: Path) -> None:
    make_synthetic(tmp_path / "few", **TINY)
    make_synthetic(tmp_path / "more", **{**TINY, "num_train_ids": 3})
    few, more = hashes(tmp_path / "few"), hashes(tmp_path / "more")
    train = [name for name in few if name.startswith("bounding_box_train")]
    assert len(train) == 8
    assert {name: few[name] for name in train}.items() <= more.items()


def test_order_of_drawing_does_not_matter() -> None:
    options = Parameters(**TINY)
    rng = np.random.default_rng(0)
    cameras = make_cameras(rng, options.num_cameras, canvas=(256, 128), gap=options.camera_gap)
    shots = plan_images(options)[:6]
    forward = [dataset.draw_shot(options, shot, cameras[shot.camera]) for shot in shots]
    backward = [dataset.draw_shot(options, shot, cameras[shot.camera]) for shot in shots[::-1]]
    assert forward == backward[::-1]


def test_names_are_unique_at_the_default_size() -> None:
    shots = plan_images(Parameters())
    assert len({(shot.folder, shot.name) for shot in shots}) == len(shots)
    assert all(NAME.fullmatch(shot.name) for shot in shots)


def test_existing_data_set_is_reused(tmp_path: Path) -> None:
    out = tmp_path / "set"
    written = make_synthetic(out, **TINY)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert make_synthetic(out, **TINY) == replace(written, reused=True)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_parameters_need_overwrite(tmp_path: Path) -> None:
    out = tmp_path / "set"
    make_synthetic(out, **TINY)
    with pytest.raises(DataError, match="other parameters.*--overwrite"):
        make_synthetic(out, seed=1, **TINY)
    before = hashes(out)
    make_synthetic(out, seed=1, overwrite=True, **TINY)
    assert not set(hashes(out).values()) & set(before.values())
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_missing_image_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "set"
    make_synthetic(out, **TINY)
    next((out / "query").iterdir()).unlink()
    with pytest.raises(DataError, match="1 of its .* missing.*--overwrite"):
        make_synthetic(out, **TINY)


def test_foreign_folder_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(DataError, match="not written by this generator"):
        make_synthetic(tmp_path / "photos", overwrite=True, **TINY)
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


def test_empty_folder_is_filled_and_failure_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "set"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_synthetic(out, progress=stop, **TINY)
    assert not list(tmp_path.iterdir())
    out.mkdir()
    assert make_synthetic(out, **TINY).total > 0


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    counts = make_synthetic(
        tmp_path / "set", progress=lambda done, total: calls.append((done, total)), **TINY
    )
    assert calls == [(done, counts.total) for done in range(1, counts.total + 1)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("num_train_ids", 0),
        ("num_test_ids", 10_000),
        ("images_per_id", 3),
        ("num_cameras", 1),
        ("num_cameras", 10),
        ("height", 8),
        ("width", 2.5),
        ("junk_share", 1.5),
        ("camera_gap", -0.1),
    ],
)
def test_bad_parameters_are_refused(tmp_path: Path, key: str, value: float) -> None:
    bad: dict[str, Any] = {key: value}
    with pytest.raises(DataError, match=key):
        make_synthetic(tmp_path / "set", **bad)
    assert not list(tmp_path.iterdir())


def test_no_distractors_and_no_junk(tmp_path: Path) -> None:
    counts = make_synthetic(tmp_path / "set", distractor_share=0.0, junk_share=0.0, **TINY)
    assert counts.distractors == counts.junk == 0


def test_backpack_shows_from_behind_and_logo_from_the_front() -> None:
    person = sample_person(np.random.default_rng(0))
    place = Placement(center=64.0, top=10.0, height=230.0, tilt=0.0)

    def draw(yaw: float, **changes: Any) -> np.ndarray:
        canvas = np.full((256, 128, 3), 0.5, np.float32)
        pose = Pose(yaw=yaw, phase=0.0, stride=0.05, lean=0.0, arm_swing=0.0)
        draw_person(canvas, replace(person, **changes), pose=pose, place=place)
        return canvas

    top = replace(person.top, kind="long", pattern="plain", color=(0.1, 0.1, 0.1))
    logo = replace(top, pattern="block", accent=(0.9, 0.9, 0.9))
    plain: dict[str, Any] = {"top": top, "bag": "none", "hair_style": "short"}
    for yaw, more in ((0.0, True), (np.pi, False)):
        changed = np.abs(draw(yaw, **plain) - draw(yaw, **{**plain, "top": logo})).max(axis=2)
        assert ((changed > 0.1).sum() > 500) == more
    bag = {**plain, "bag": "backpack", "bag_color": (0.9, 0.1, 0.1)}
    seen = [
        int((np.abs(draw(yaw, **plain) - draw(yaw, **bag)).max(axis=2) > 0.1).sum())
        for yaw in (0.0, np.pi)
    ]
    assert seen[1] > 2 * seen[0] > 0


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "make_synthetic.py")]
    command += ["--out", str(tmp_path / "set")]
    command += [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "images written: 8 train" in done.stdout
    refused = subprocess.run([*command, "--seed=1"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    assert "Traceback" not in refused.stderr
