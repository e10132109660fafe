# SPDX-License-Identifier: Apache-2.0
"""Generated tracklets in the layout of MARS, for tests and demonstrations.

The images are drawn, not photographed: nobody is on them. A tracklet is one walk of a person
through the view of one camera (``walk``), cropped by a tracker. Every tracklet has a random
generator of its own, derived from (seed, identity, tracklet), so its bytes do not depend on how
many others there are.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.io import savemat

from ppcls_ise.errors import DataError
from ppcls_ise.synthetic.cameras import make_cameras
from ppcls_ise.synthetic.complete_folder import publish
from ppcls_ise.synthetic.dataset import CANVAS_HEIGHT
from ppcls_ise.synthetic.people import Person, sample_person
from ppcls_ise.synthetic.walk import Setting, draw_walk

FORMAT = 1  # raise it when the same parameters give other images
TRAIN, TEST = "bbox_train", "bbox_test"
SLIPS_FILE = "info/slips.csv"
# First entry of every seed sequence: what the generator is for.
_CAMERAS, _PERSON, _PLAN, _WALK, _SLIP = range(100, 105)
# How many cameras see a person, and how often one of them does; with few, few people have a match.
_SEEN_BY = (0.35, 0.30, 0.20, 0.15)
_VISITS = (0.6, 0.3, 0.1)
# Lengths of tracklets are log-normal with this standard deviation of the logarithm.
_LENGTH_SPREAD, _LONGEST = 0.9, 60


@dataclass(frozen=True)
class TrackletParameters:
    """What determines the images; stored next to them as ``synthetic.json``.

    Attributes:
        mean_length: frames of a tracklet; lengths are spread widely, from 2 to 60.
        look_alikes: share of people who wear the clothes of somebody else, up to small changes.
        slips: share of training tracklets in which the tracker slips to another person.
        light_gap, occlusion, crossing, repeated: see :class:`~ppcls_ise.synthetic.walk.Setting`.
    """

    seed: int = 0
    num_train_ids: int = 32
    num_test_ids: int = 16
    num_cameras: int = 6
    mean_length: int = 14
    height: int = 128
    width: int = 64
    camera_gap: float = 1.0
    light_gap: float = Setting.light_gap
    look_alikes: float = 0.3
    slips: float = 0.05
    occlusion: float = Setting.occlusion
    crossing: float = Setting.crossing
    repeated: float = Setting.repeated

    def __post_init__(self) -> None:
        least = {
            "seed": 0, "num_train_ids": 1, "num_test_ids": 0, "num_cameras": 2, "mean_length": 2,
            "height": 16, "width": 8,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise DataError(f"{name} must be an integer of at least {low}, not {value!r}.")
        for name, high in (
            ("num_train_ids", 4999), ("num_test_ids", 4999), ("num_cameras", 9),
            ("mean_length", _LONGEST), ("camera_gap", 5.0), ("light_gap", 5.0),
            ("look_alikes", 1.0), ("slips", 1.0), ("occlusion", 1.0), ("crossing", 1.0),
            ("repeated", 1.0),
        ):  # fmt: skip
            if not 0.0 <= getattr(self, name) <= high:
                raise DataError(f"{name} must be in [0, {high:g}], not {getattr(self, name)!r}.")


@dataclass(frozen=True)
class Tracklet:
    """One tracklet to draw.

    Attributes:
        folder: ``bbox_train`` or ``bbox_test``.
        pid: the person it is named after.
        camera: 0-based.
        number: counts the tracklets of this person, from 1.
        shown: who is seen in each frame: ``pid``, and another one after the tracker slipped.
    """

    folder: str
    pid: int
    camera: int
    number: int
    shown: tuple[int, ...]

    @property
    def names(self) -> list[str]:
        """``0001/0001C1T0002F003.jpg``: identity, camera, tracklet, frame, as in MARS."""
        stem = f"{self.pid:04d}/{self.pid:04d}C{self.camera + 1}T{self.number:04d}"
        return [f"{stem}F{frame:03d}.jpg" for frame in range(1, len(self.shown) + 1)]


@dataclass(frozen=True)
class TrackletCounts:
    """How many images, tracklets and slips there are; ``reused`` when they were on disk."""

    train: int
    test: int
    train_tracklets: int
    test_tracklets: int
    slips: int
    reused: bool = False

    @property
    def total(self) -> int:
        return self.train + self.test


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, *key)))


def _plan_person(options: TrackletParameters, pid: int, folder: str) -> list[Tracklet]:
    rng = _rng(options.seed, _PLAN, pid)
    odds = np.array(_SEEN_BY[: options.num_cameras])
    if folder == TEST:
        odds[0] = 0.0  # a query needs a match under another camera
    seen_by = 1 + int(rng.choice(len(odds), p=odds / odds.sum()))
    cameras = np.sort(rng.permutation(options.num_cameras)[:seen_by])
    visits = [1 + int(rng.choice(len(_VISITS), p=_VISITS)) for _ in cameras]
    plan = []
    for number, camera in enumerate(np.repeat(cameras, visits), start=1):
        log_mean = np.log(options.mean_length) - _LENGTH_SPREAD**2 / 2
        length = int(np.clip(np.rint(rng.lognormal(log_mean, _LENGTH_SPREAD)), 2, _LONGEST))
        plan.append(Tracklet(folder, pid, int(camera), number, (pid,) * length))
    return plan


def plan_tracklets(options: TrackletParameters) -> list[Tracklet]:
    """All tracklets of a data set, by folder, person and number. Draws nothing."""
    plan = []
    last = options.num_train_ids
    for pid in range(1, last + options.num_test_ids + 1):
        plan += _plan_person(options, pid, TRAIN if pid <= last else TEST)
    if last > 1:
        plan = [_slipped(options, one) if one.folder == TRAIN else one for one in plan]
    return plan


def _slipped(options: TrackletParameters, tracklet: Tracklet) -> Tracklet:
    """The tracklet, with another person from some frame on if its tracker slips."""
    rng = _rng(options.seed, _SLIP, tracklet.pid, tracklet.number)
    length = len(tracklet.shown)
    if length < 4 or rng.random() >= options.slips:
        return tracklet
    other = 1 + int(rng.integers(options.num_train_ids - 1))
    other += other >= tracklet.pid
    after = int(rng.integers(length // 4, length - length // 4))
    shown = (tracklet.pid,) * max(after, 1) + (other,) * (length - max(after, 1))
    return replace(tracklet, shown=shown)


def _person(options: TrackletParameters, pid: int) -> Person:
    """The attributes of a person; a look-alike has the clothes of an earlier one."""
    rng = _rng(options.seed, _PERSON, pid)
    person = sample_person(rng)
    first = 1 if pid <= options.num_train_ids else options.num_train_ids + 1
    if pid == first or rng.random() >= options.look_alikes:
        return person
    model = sample_person(_rng(options.seed, _PERSON, int(rng.integers(first, pid))))
    accent = model.top.accent if rng.random() < 0.5 else person.top.accent
    return replace(
        person,
        top=replace(model.top, accent=accent),
        bottom=model.bottom,
        shoes=model.shoes if rng.random() < 0.5 else person.shoes,
        hair=model.hair,
    )


def _count(plan: list[Tracklet]) -> TrackletCounts:
    def frames(folder: str) -> int:
        return sum(len(one.shown) for one in plan if one.folder == folder)

    return TrackletCounts(
        train=frames(TRAIN),
        test=frames(TEST),
        train_tracklets=sum(one.folder == TRAIN for one in plan),
        test_tracklets=sum(one.folder == TEST for one in plan),
        slips=sum(len(set(one.shown)) > 1 for one in plan),
    )


def _mat(name: str, values: np.ndarray) -> bytes:
    """A MATLAB file with one matrix; the header, which holds the time, is made constant."""
    stream = io.BytesIO()
    savemat(stream, {name: values.astype(np.float64)})
    return b"MATLAB 5.0 MAT-file".ljust(116) + stream.getvalue()[116:]


def _write_info(folder: Path, plan: list[Tracklet]) -> None:
    """The lists of MARS: frames, tracklets as (first, last, identity, camera), and queries: the
    first tracklet of each test person under each camera."""
    info = folder / "info"
    info.mkdir()
    for split, kind in ((TRAIN, "train"), (TEST, "test")):
        chosen = [one for one in plan if one.folder == split]
        names = [Path(name).name for one in chosen for name in one.names]
        (info / f"{kind}_name.txt").write_text("".join(f"{name}\n" for name in names))
        last = np.cumsum([len(one.shown) for one in chosen], dtype=np.int64)
        rows = [
            (end - len(one.shown) + 1, end, one.pid, one.camera + 1)
            for end, one in zip(last, chosen, strict=True)
        ]
        table = np.array(rows, dtype=np.int64).reshape(-1, 4)
        (info / f"tracks_{kind}_info.mat").write_bytes(_mat(f"track_{kind}_info", table))
        if split == TEST:
            first = np.unique(table[:, 2:], axis=0, return_index=True)[1]
            (info / "query_IDX.mat").write_bytes(_mat("query_IDX", np.sort(first)[None] + 1))
    lines = ["image,identity"]
    for one in plan:
        pairs = zip(one.names, one.shown, strict=True)
        lines += [f"{one.folder}/{name},{pid:04d}" for name, pid in pairs if pid != one.pid]
    (folder / SLIPS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _readme(options: TrackletParameters, counts: TrackletCounts) -> str:
    lines = [
        "Generated tracklets of pedestrians in the layout of MARS.",
        "",
        "These images are drawn by a program (ppcls_ise.synthetic.tracklets): they show no real",
        "person and no real place. They serve tests and demonstrations; results on them say",
        "nothing about real cameras.",
        "",
        "File names: identity C<camera> T<tracklet of the identity> F<frame>. In some tracklets of",
        f"{TRAIN} the tracker slips to another person: {SLIPS_FILE} says who those frames show.",
        "",
        "Parameters:",
        *(f"  {name}: {value}" for name, value in asdict(options).items()),
        "",
        f"{TRAIN}: {counts.train} images in {counts.train_tracklets} tracklets, {counts.slips} "
        "of which mix people",
        f"{TEST}: {counts.test} images in {counts.test_tracklets} tracklets",
    ]
    return "\n".join(lines) + "\n"


def make_tracklets(
    out: str | os.PathLike,
    seed: int = 0,
    *,
    num_train_ids: int = TrackletParameters.num_train_ids,
    num_test_ids: int = TrackletParameters.num_test_ids,
    num_cameras: int = TrackletParameters.num_cameras,
    mean_length: int = TrackletParameters.mean_length,
    height: int = TrackletParameters.height,
    width: int = TrackletParameters.width,
    camera_gap: float = TrackletParameters.camera_gap,
    light_gap: float = TrackletParameters.light_gap,
    look_alikes: float = TrackletParameters.look_alikes,
    slips: float = TrackletParameters.slips,
    occlusion: float = TrackletParameters.occlusion,
    crossing: float = TrackletParameters.crossing,
    repeated: float = TrackletParameters.repeated,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> TrackletCounts:
    """Write generated tracklets in the layout of MARS to the folder ``out``.

    Identities 1 ... ``num_train_ids`` are in ``bbox_train``, the next ``num_test_ids`` in
    ``bbox_test``, one sub-folder per person; ``info`` holds the lists of MARS (``*_name.txt``,
    ``tracks_*_info.mat``, ``query_IDX.mat``) and ``slips.csv``. A person is seen by one to four of
    the cameras, a test person by two at least. The folder appears complete or not at all.

    Args:
        out: folder to create. If it holds a complete data set of the same parameters, nothing is
            written.
        seed: same seed and parameters, same bytes (with the same OpenCV and NumPy).
        num_train_ids, num_test_ids, num_cameras, mean_length, height, width, camera_gap, light_gap,
            look_alikes, slips, occlusion, crossing, repeated: see :class:`TrackletParameters`.
        overwrite: replace ``out`` if it is a generated data set (other folders are never deleted).
        progress: called as ``progress(done, total)`` with images, after each tracklet.

    Returns:
        The number of images, tracklets and slips.

    Raises:
        DataError: a parameter is out of range, or ``out`` exists with other content.

    Cost: 6 to 15 ms per image on one core, nearly whatever the size of the crops.
    """
    options = TrackletParameters(
        seed=seed,
        num_train_ids=num_train_ids,
        num_test_ids=num_test_ids,
        num_cameras=num_cameras,
        mean_length=mean_length,
        height=height,
        width=width,
        camera_gap=camera_gap,
        light_gap=light_gap,
        look_alikes=look_alikes,
        slips=slips,
        occlusion=occlusion,
        crossing=crossing,
        repeated=repeated,
    )
    plan = plan_tracklets(options)
    counts = _count(plan)
    report = progress or (lambda done, total: None)

    def write(folder: Path) -> None:
        done = 0
        for tracklet, frames in _draw(options, plan):
            (folder / tracklet.folder / f"{tracklet.pid:04d}").mkdir(parents=True, exist_ok=True)
            for name, data in zip(tracklet.names, frames, strict=True):
                (folder / tracklet.folder / name).write_bytes(data)
            done += len(frames)
            report(done, counts.total)
        _write_info(folder, plan)
        (folder / "README.txt").write_text(_readme(options, counts), encoding="utf-8")

    reused = publish(
        out,
        {"generator": "ppcls_ise.synthetic.tracklets", "format": FORMAT, **asdict(options)},
        [f"{one.folder}/{name}" for one in plan for name in one.names],
        write,
        overwrite=overwrite,
    )
    return replace(counts, reused=reused)


def _draw(
    options: TrackletParameters, plan: list[Tracklet]
) -> Iterator[tuple[Tracklet, list[bytes]]]:
    size = (options.height, options.width)
    canvas = (CANVAS_HEIGHT, max(16, round(CANVAS_HEIGHT * size[1] / size[0])))
    cameras = make_cameras(
        _rng(options.seed, _CAMERAS), options.num_cameras, canvas=canvas, gap=options.camera_gap
    )
    setting = Setting(options.light_gap, options.occlusion, options.crossing, options.repeated)
    for one in plan:
        people = {pid: _person(options, pid) for pid in set(one.shown)}
        yield (
            one,
            draw_walk(
                _rng(options.seed, _WALK, one.pid, one.number),
                [people[pid] for pid in one.shown],
                cameras[one.camera],
                canvas=canvas,
                size=size,
                setting=setting,
            ),
        )
