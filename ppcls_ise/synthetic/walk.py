# SPDX-License-Identifier: Apache-2.0
"""One walk through the view of a camera: the frames of a tracklet.

From frame to frame pose, size, place and light change little. Something may stand in front for
some of the frames, somebody else may cross, the light of the whole walk differs from that of the
next one, and a tracker may slip from one person to another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ppcls_ise.synthetic.cameras import Camera, Exposure, cast_shadow, observe, occlude
from ppcls_ise.synthetic.figure import Placement, Pose, draw_person
from ppcls_ise.synthetic.people import Person, sample_person

Array = np.ndarray
_STRIDE = 0.8  # radians of gait from one frame to the next
_MEMORY = 0.85  # correlation of the detector's errors in neighboring frames
_WHOLE_WALK = 40  # frames of a walk across the whole view


@dataclass(frozen=True)
class Setting:
    """How hard walks are.

    Attributes:
        light_gap: spread of the light between walks under one camera; 1 is about that of the
            cameras, 0 none.
        occlusion: share of walks in which something stands in front for a while.
        crossing: share of walks in which somebody else crosses the view.
        repeated: share of frames that repeat the frame before, byte by byte.
    """

    light_gap: float = 1.0
    occlusion: float = 0.5
    crossing: float = 0.35
    repeated: float = 0.03


def _wander(rng: np.random.Generator, count: int) -> Array:
    """A slowly changing series [count] of standard deviation 1."""
    steps = rng.normal(size=count)
    series = np.empty(count)
    value = rng.normal()
    for i in range(count):
        series[i] = value
        value = _MEMORY * value + math.sqrt(1 - _MEMORY**2) * steps[i]
    return series


def _interval(rng: np.random.Generator, count: int) -> tuple[int, int]:
    """First frame and end of what lasts a fifth to three fifths of a walk."""
    lasts = max(1, round(count * rng.uniform(0.2, 0.6)))
    first = int(rng.integers(0, count - lasts + 1))
    return first, first + lasts


class _Walk:
    """The plan of a walk: everything that is drawn at random, before any frame is."""

    def __init__(
        self, rng: np.random.Generator, camera: Camera, count: int, setting: Setting
    ) -> None:
        self.count = count
        self.part = np.linspace(0.0, min(1.0, count / _WHOLE_WALK), count)
        heading = camera.heading + rng.normal(0.0, 0.45) + math.pi * (rng.random() < 0.35)
        self.yaw = heading + rng.normal(0.0, 0.5) * self.part + 0.08 * _wander(rng, count)
        self.phase = rng.uniform(0, 2 * math.pi) + _STRIDE * np.arange(count)
        self.stride, self.swing = rng.uniform(0.04, 0.14), rng.uniform(0.02, 0.10)
        self.lean = rng.normal(0.0, 0.012)
        grows = rng.normal(0.0, 0.08) * self.part + 0.02 * _wander(rng, count)
        self.height = 0.90 * rng.uniform(0.87, 1.12) * np.exp(grows)
        self.center = 0.5 + rng.normal(0.0, 0.05) + 0.04 * _wander(rng, count)
        self.shift = rng.normal(0.0, 0.02) + 0.02 * _wander(rng, count)
        self.scene = rng.random(2)
        self.speed = rng.choice((-1.0, 1.0)) * rng.uniform(0.2, 0.6)
        self.still = rng.random(count) < setting.repeated
        self._set_light(rng, count, setting.light_gap)
        self.front = _interval(rng, count) if rng.random() < setting.occlusion else (0, 0)
        self.front_key = int(rng.integers(1 << 32))
        self.cross = _interval(rng, count) if rng.random() < setting.crossing else (0, 0)
        self.crosser, self.crosser_near = sample_person(rng), bool(rng.random() < 0.5)
        self.crosser_side = float(rng.choice((-1.0, 1.0)))

    def _set_light(self, rng: np.random.Generator, count: int, gap: float) -> None:
        exposure = Exposure.draw(rng)
        warmth, tint = gap * rng.normal(0.0, 0.04), gap * rng.normal(0.0, 0.015)
        own = (1 + warmth, 1 + tint, 1 - warmth)
        red, green, blue = (float(a * b) for a, b in zip(exposure.tint, own, strict=True))
        self.exposure = replace(
            exposure,
            motion=False,
            light=exposure.light * math.exp(gap * rng.normal(0.0, 0.12)),
            gamma=exposure.gamma * math.exp(gap * rng.normal(0.0, 0.06)),
            tint=(red, green, blue),
        )
        drift = gap * rng.normal(0.0, 0.08) * self.part
        self.light = self.exposure.light * np.exp(drift + 0.015 * _wander(rng, count))
        self.blur = self.exposure.blur * np.exp(0.15 * _wander(rng, count))
        self.motion = rng.random(count) < 0.1

    def window(self, camera: Camera, canvas: tuple[int, int], frame: int) -> Array:
        """The part of the scene behind the person, who walks along it."""
        free = np.array(camera.scene.shape[:2]) - canvas
        top = int(self.scene[0] * free[0])
        left = (self.scene[1] + self.speed * self.part[frame]) % 2.0
        left = int((2.0 - left if left > 1.0 else left) * free[1])  # back at the end of the scene
        return camera.scene[top : top + canvas[0], left : left + canvas[1]].copy()

    def place(self, canvas: tuple[int, int], tilt: float, stature: float, frame: int) -> Placement:
        height = canvas[0] * stature * self.height[frame]
        return Placement(
            center=canvas[1] * self.center[frame],
            top=(canvas[0] - height) / 2 + canvas[0] * self.shift[frame],
            height=height,
            tilt=tilt,
        )

    def pose(self, frame: int) -> Pose:
        return Pose(
            yaw=float(self.yaw[frame]),
            phase=float(self.phase[frame]),
            stride=float(self.stride),
            lean=float(self.lean),
            arm_swing=float(self.swing),
        )

    def _progress(self, interval: tuple[int, int], frame: int) -> float:
        return (frame - interval[0] + 0.5) / (interval[1] - interval[0])

    def draw_crosser(self, canvas: Array, place: Placement, frame: int, *, near: bool) -> None:
        if near != self.crosser_near or not self.cross[0] <= frame < self.cross[1]:
            return
        along = self.crosser_side * (1.6 * self._progress(self.cross, frame) - 0.8)
        size = 1.05 if near else 0.8
        other = Placement(
            center=canvas.shape[1] * (0.5 + along),
            top=place.top + (0.03 if near else 0.08) * canvas.shape[0],
            height=place.height * size,
            tilt=place.tilt,
        )
        pose = replace(self.pose(frame), yaw=self.crosser_side * math.pi / 2)
        draw_person(canvas, self.crosser, pose=pose, place=other)

    def draw_front(self, canvas: Array, frame: int) -> None:
        """What stands in front passes through the view."""
        if not self.front[0] <= frame < self.front[1]:
            return
        height, width = canvas.shape[:2]
        wide = np.zeros((height, round(1.6 * width), 3), np.float32)
        left = round((wide.shape[1] - width) * self._progress(self.front, frame))
        wide[:, left : left + width] = canvas
        occlude(wide, np.random.default_rng(self.front_key))
        canvas[:] = wide[:, left : left + width]


def draw_walk(
    rng: np.random.Generator,
    people: Sequence[Person],
    camera: Camera,
    *,
    canvas: tuple[int, int],
    size: tuple[int, int],
    setting: Setting,
) -> list[bytes]:
    """The JPEG bytes of every frame of a walk; 6 to 15 ms each.

    Args:
        rng: of this walk alone.
        people: who is seen in each frame; more than one if the tracker slips.
        camera: who looks.
        canvas, size: (height, width) of the drawing and of the crops.
        setting: how hard it is.
    """
    walk = _Walk(rng, camera, len(people), setting)
    frames: list[bytes] = []
    for frame, person in enumerate(people):
        if frame and walk.still[frame] and person is people[frame - 1]:
            frames.append(frames[-1])
            continue
        image = walk.window(camera, canvas, frame)
        place = walk.place(canvas, camera.tilt, person.stature, frame)
        walk.draw_crosser(image, place, frame, near=False)
        feet = (place.center, place.top + place.height)
        cast_shadow(image, np.random.default_rng(walk.front_key), feet)
        draw_person(image, person, pose=walk.pose(frame), place=place)
        walk.draw_crosser(image, place, frame, near=True)
        walk.draw_front(image, frame)
        exposure = replace(
            walk.exposure,
            light=float(walk.light[frame]),
            blur=float(walk.blur[frame]),
            motion=bool(walk.motion[frame]),
        )
        frames.append(observe(image, camera, size=size, rng=rng, exposure=exposure))
    return frames
