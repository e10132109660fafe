# SPDX-License-Identifier: Apache-2.0
"""Generated pedestrian crops in the layout of Market-1501, for tests and demonstrations.

The images are drawn, not photographed: nobody is on them. Every identity is a conjunction of
clothing, patterns, hair and bags (``synthetic_people``), seen by cameras that differ in scene,
light, color cast, viewpoint and resolution (``synthetic_cameras``).

Every image has a random generator of its own, derived from (seed, kind, identity, image), so its
bytes depend neither on the order of drawing nor on how many other images there are. JPEG encoding
and floating-point functions may differ between builds of OpenCV and NumPy; with the same builds
the same parameters give the same bytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ppcls_ise.errors import DataError
from ppcls_ise.synthetic.cameras import (
    Camera,
    background,
    cast_shadow,
    make_cameras,
    observe,
    occlude,
)
from ppcls_ise.synthetic.complete_folder import publish
from ppcls_ise.synthetic.figure import Placement, Pose, draw_person
from ppcls_ise.synthetic.people import Person, sample_person

FORMAT = 1  # raise it when the same parameters give other images
CANVAS_HEIGHT = 256
TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
FOLDERS = (TRAIN, QUERY, GALLERY)
# First entry of every seed sequence: what the generator is for.
_CAMERAS, _PERSON, _PLAN, _TRACK, _IMAGE, _STRANGER = range(6)


@dataclass(frozen=True)
class Parameters:
    """What determines the images; stored next to them as ``synthetic.json``."""

    seed: int = 0
    num_train_ids: int = 60
    num_test_ids: int = 40
    images_per_id: int = 24
    num_cameras: int = 6
    height: int = 128
    width: int = 64
    camera_gap: float = 1.0
    distractor_share: float = 0.15
    junk_share: float = 0.05

    def __post_init__(self) -> None:
        least = {
            "seed": 0, "num_train_ids": 1, "num_test_ids": 1, "images_per_id": 4,
            "num_cameras": 2, "height": 16, "width": 8,
        }  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise DataError(f"{name} must be an integer of at least {low}, not {value!r}.")
        if self.num_train_ids + self.num_test_ids > 9999:
            raise DataError(
                f"num_train_ids + num_test_ids is {self.num_train_ids + self.num_test_ids}; file "
                "names of Market-1501 have room for 9999 identities. Lower one of them."
            )
        if self.num_cameras > 9:
            raise DataError(f"num_cameras must be at most 9, not {self.num_cameras}.")
        for name, high in (("camera_gap", 5.0), ("distractor_share", 1.0), ("junk_share", 1.0)):
            if not 0.0 <= getattr(self, name) <= high:
                raise DataError(f"{name} must be in [0, {high:g}], not {getattr(self, name)!r}.")


@dataclass(frozen=True)
class Counts:
    """How many images there are; ``reused`` when they were on disk already."""

    train: int
    query: int
    gallery: int
    distractors: int
    junk: int
    reused: bool = False

    @property
    def total(self) -> int:
        return self.train + self.query + self.gallery


@dataclass(frozen=True)
class _Shot:
    """One image to draw. ``pid`` is what its name says, ``identity`` who is on it."""

    folder: str
    name: str
    pid: int
    identity: int
    camera: int
    index: int


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((seed, *key)))


def _name(pid: int, camera: int, frame: int, box: int) -> str:
    who = "-1" if pid < 0 else f"{pid:04d}"
    return f"{who}_c{camera + 1}s1_{frame:06d}_{box:02d}.jpg"


def _plan_identity(options: Parameters, pid: int) -> list[tuple[int, int]]:
    """The (camera, frame) of each image of an identity, ordered by camera and frame."""
    rng = _rng(options.seed, _PLAN, pid)
    most = min(options.num_cameras, options.images_per_id // 2)
    seen_by = int(rng.integers(max(2, math.ceil(0.6 * most)), most + 1))
    cameras = np.sort(rng.permutation(options.num_cameras)[:seen_by])
    plan = []
    for rank, camera in enumerate(cameras):
        share = options.images_per_id // seen_by + (rank < options.images_per_id % seen_by)
        start = int(rng.integers(1, 90_000))
        plan += [(int(camera), start + 25 * step) for step in range(share)]
    return plan


def plan_images(options: Parameters) -> list[_Shot]:
    """All images of a data set: what each shows and its name. Draws nothing."""
    shots = []
    for pid in range(1, options.num_train_ids + 1):
        for index, (camera, frame) in enumerate(_plan_identity(options, pid)):
            shots.append(_Shot(TRAIN, _name(pid, camera, frame, 1), pid, pid, camera, index))
    first = options.num_train_ids + 1
    gallery = 0
    for pid in range(first, first + options.num_test_ids):
        queried: set[int] = set()
        for index, (camera, frame) in enumerate(_plan_identity(options, pid)):
            # One query per identity and camera, like Market-1501; the rest is the gallery.
            folder, box = (GALLERY, 1) if camera in queried else (QUERY, 0)
            queried.add(camera)
            gallery += folder == GALLERY
            shots.append(_Shot(folder, _name(pid, camera, frame, box), pid, pid, camera, index))
    for pid, share in ((0, options.distractor_share), (-1, options.junk_share)):
        for index in range(math.ceil(share * gallery)):
            rng = _rng(options.seed, _STRANGER, pid + 1, index)
            camera = int(rng.integers(options.num_cameras))
            # A distractor is anybody; junk is a bad crop of somebody of the test set.
            identity = index if pid == 0 else first + int(rng.integers(options.num_test_ids))
            name = _name(pid, camera, 1 + 25 * index, 1)
            shots.append(_Shot(GALLERY, name, pid, identity, camera, index))
    return shots


def _person(options: Parameters, shot: _Shot) -> Person:
    if shot.pid == 0:
        return sample_person(_rng(options.seed, _STRANGER, 2, shot.identity))
    return sample_person(_rng(options.seed, _PERSON, shot.identity))


def _stand(
    rng: np.random.Generator, canvas: tuple[int, int], camera: Camera, stature: float
) -> Placement:
    """A person in the middle of the crop, up to the jitter of a detector."""
    height = canvas[0] * 0.90 * stature * rng.uniform(0.87, 1.12)
    return Placement(
        center=canvas[1] * (0.5 + rng.normal(0.0, 0.075)),
        top=(canvas[0] - height) / 2 + canvas[0] * rng.normal(0.0, 0.035),
        height=height,
        tilt=camera.tilt,
    )


def _pose(rng: np.random.Generator, yaw: float) -> Pose:
    return Pose(
        yaw=yaw,
        phase=float(rng.uniform(0, 2 * math.pi)),
        stride=float(rng.uniform(0.04, 0.14)),
        lean=float(rng.normal(0.0, 0.012)),
        arm_swing=float(rng.uniform(0.02, 0.10)),
    )


def draw_shot(options: Parameters, shot: _Shot, camera: Camera) -> bytes:
    """Draw one planned image -> its JPEG bytes. 6 to 15 ms, nearly whatever the size."""
    size = (options.height, options.width)
    canvas_size = (CANVAS_HEIGHT, max(16, round(CANVAS_HEIGHT * size[1] / size[0])))
    key = (shot.pid + 1, shot.identity, shot.camera)
    # Images of one identity under one camera share the direction of walking.
    track = _rng(options.seed, _TRACK, *key)
    yaw = camera.heading + track.normal(0.0, 0.45) + math.pi * (track.random() < 0.35)
    rng = _rng(options.seed, _IMAGE, *key, shot.index)

    canvas = background(rng, camera, canvas_size)
    person = _person(options, shot)
    place = _stand(rng, canvas_size, camera, person.stature)
    if shot.pid < 0 or (shot.pid == 0 and rng.random() < 0.5):
        # A box that missed: too large, too small or beside the person.
        scale = float(rng.choice((0.45, 1.7)))
        height = place.height * scale
        center = place.center + canvas_size[1] * rng.choice((-0.35, 0.35))
        top = place.top + rng.uniform(-0.25, 0.25) * canvas_size[0]
        place = Placement(center=center, top=top, height=height, tilt=place.tilt)
    if rng.random() < 0.12:  # somebody further away
        far = Placement(
            center=canvas_size[1] * rng.choice((0.05, 0.95)),
            top=place.top + 0.08 * canvas_size[0],
            height=place.height * rng.uniform(0.6, 0.85),
            tilt=camera.tilt,
        )
        pose = _pose(rng, rng.uniform(0, 2 * math.pi))
        draw_person(canvas, sample_person(rng), pose=pose, place=far)
    cast_shadow(canvas, rng, (place.center, place.top + place.height))
    draw_person(canvas, person, pose=_pose(rng, yaw + rng.normal(0.0, 0.2)), place=place)
    if rng.random() < 0.05:  # somebody closer, half in front
        near = Placement(
            center=canvas_size[1] * rng.choice((-0.02, 1.02)),
            top=place.top + 0.03 * canvas_size[0],
            height=place.height * 1.05,
            tilt=camera.tilt,
        )
        pose = _pose(rng, rng.uniform(0, 2 * math.pi))
        draw_person(canvas, sample_person(rng), pose=pose, place=near)
    if rng.random() < 0.10:
        occlude(canvas, rng)
    return observe(canvas, camera, size=size, rng=rng)


def _count(shots: list[_Shot], *, reused: bool) -> Counts:
    return Counts(
        train=sum(shot.folder == TRAIN for shot in shots),
        query=sum(shot.folder == QUERY for shot in shots),
        gallery=sum(shot.folder == GALLERY for shot in shots),
        distractors=sum(shot.pid == 0 for shot in shots),
        junk=sum(shot.pid < 0 for shot in shots),
        reused=reused,
    )


def _readme(options: Parameters, counts: Counts) -> str:
    lines = [
        "Generated pedestrian crops in the layout of Market-1501.",
        "",
        "These images are drawn by a program (ppcls_ise.synthetic): they show no real person",
        "and no real place. They serve tests and demonstrations; results on them say nothing about",
        "real cameras.",
        "",
        "File names: identity_c<camera>s<sequence>_<frame>_<box>.jpg; identity 0000 marks",
        "distractors and -1 junk, as in Market-1501.",
        "",
        "Parameters:",
        *(f"  {name}: {value}" for name, value in asdict(options).items()),
        "",
        "Images:",
        f"  {TRAIN}: {counts.train}",
        f"  {QUERY}: {counts.query}",
        f"  {GALLERY}: {counts.gallery} "
        f"({counts.distractors} of them distractors, {counts.junk} junk)",
    ]
    return "\n".join(lines) + "\n"


def _write_all(
    folder: Path, options: Parameters, shots: list[_Shot], progress: Callable[[int, int], None]
) -> None:
    canvas = (CANVAS_HEIGHT, max(16, round(CANVAS_HEIGHT * options.width / options.height)))
    cameras = make_cameras(
        _rng(options.seed, _CAMERAS), options.num_cameras, canvas=canvas, gap=options.camera_gap
    )
    for name in FOLDERS:
        (folder / name).mkdir()
    for done, shot in enumerate(shots, start=1):
        data = draw_shot(options, shot, cameras[shot.camera])
        (folder / shot.folder / shot.name).write_bytes(data)
        progress(done, len(shots))


def make_synthetic(
    out: str | os.PathLike,
    seed: int = 0,
    *,
    num_train_ids: int = Parameters.num_train_ids,
    num_test_ids: int = Parameters.num_test_ids,
    images_per_id: int = Parameters.images_per_id,
    num_cameras: int = Parameters.num_cameras,
    height: int = Parameters.height,
    width: int = Parameters.width,
    camera_gap: float = Parameters.camera_gap,
    distractor_share: float = Parameters.distractor_share,
    junk_share: float = Parameters.junk_share,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Write a generated data set in the layout of Market-1501 to the folder ``out``.

    Identities 1 … ``num_train_ids`` are in ``bounding_box_train``, the next ``num_test_ids`` in
    ``query`` (one image per identity and camera) and ``bounding_box_test`` (the rest), which also
    holds distractors (identity 0) and junk (-1). The folder appears complete or not at all.

    Args:
        out: folder to create. If it holds a complete data set of the same parameters, nothing is
            written.
        seed: same seed and parameters, same bytes (with the same OpenCV and NumPy).
        num_train_ids, num_test_ids: how many identities; disjoint.
        images_per_id: images of each identity, over at least two of the cameras; at least 4.
        num_cameras: 2 to 9.
        height, width: size of the crops in pixels.
        camera_gap: how far the light, color and scenes of the cameras are apart; 0 is not at all.
        distractor_share, junk_share: images added to the gallery, relative to its size.
        overwrite: replace ``out`` if it is a generated data set (other folders are never deleted).
        progress: called as ``progress(done, total)`` after each image.

    Returns:
        The number of images of each kind.

    Raises:
        DataError: a parameter is out of range, or ``out`` exists with other content.

    Cost: 6 to 15 ms per image on one core, nearly whatever the size of the crops.
    """
    options = Parameters(
        seed=seed,
        num_train_ids=num_train_ids,
        num_test_ids=num_test_ids,
        images_per_id=images_per_id,
        num_cameras=num_cameras,
        height=height,
        width=width,
        camera_gap=camera_gap,
        distractor_share=distractor_share,
        junk_share=junk_share,
    )
    shots = plan_images(options)
    report = progress or (lambda done, total: None)
    counts = _count(shots, reused=False)

    def write(folder: Path) -> None:
        _write_all(folder, options, shots, report)
        (folder / "README.txt").write_text(_readme(options, counts), encoding="utf-8")

    reused = publish(
        out,
        {"generator": "ppcls_ise.synthetic.dataset", "format": FORMAT, **asdict(options)},
        [f"{shot.folder}/{shot.name}" for shot in shots],
        write,
        overwrite=overwrite,
    )
    return replace(counts, reused=reused)
