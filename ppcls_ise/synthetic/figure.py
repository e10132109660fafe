# SPDX-License-Identifier: Apache-2.0
"""Paint a :class:`~ppcls_ise.synthetic.people.Person` into a canvas, limb by limb.

A small 3-D skeleton is turned by the yaw of its :class:`Pose`, projected orthographically and
painted from back to front. Cloth is a texture on a cylinder, so that a logo or an open jacket is
visible from the front only, and a backpack from behind. Images are float32 RGB in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ppcls_ise.synthetic.people import Color, Garment, Person

Array = np.ndarray
# fill(u, v): u in [-1, 1] across the part, v in [0, 1] along it -> colors [h, w, 3]
Fill = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Pose:
    """How an identity stands: yaw 0 faces the camera, pi/2 walks to the right (radians)."""

    yaw: float
    phase: float
    stride: float
    lean: float
    arm_swing: float


@dataclass(frozen=True)
class Placement:
    """Where a person stands in the canvas, in pixels; ``tilt`` is the camera looking down."""

    center: float
    top: float
    height: float
    tilt: float


def _box(canvas: Array, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice] | None:
    height, width = canvas.shape[:2]
    left, right = max(0, math.floor(x0) - 1), min(width, math.ceil(x1) + 2)
    upper, lower = max(0, math.floor(y0) - 1), min(height, math.ceil(y1) + 2)
    return (slice(upper, lower), slice(left, right)) if left < right and upper < lower else None


def _blend(canvas: Array, box: tuple[slice, slice], alpha: Array, u: Array, color: Array) -> None:
    # A cylinder lit from the front: the rim is darker.
    shade = 0.66 + 0.34 * np.sqrt(np.maximum(0.0, 1.0 - 0.92 * u * u))
    region = canvas[box]
    region += alpha[..., None] * (np.clip(color * shade[..., None], 0.0, 1.0) - region)


def paint_capsule(canvas: Array, ends: Array, radii: tuple[float, float], fill: Fill) -> None:
    """Paint a tapered limb from ``ends[0]`` to ``ends[1]`` ([2, 2] pixels, x then y) in place."""
    (ax, ay), (bx, by) = ends
    reach = max(radii)
    box = _box(
        canvas, min(ax, bx) - reach, min(ay, by) - reach, max(ax, bx) + reach, max(ay, by) + reach
    )
    if box is None:
        return
    y, x = np.ogrid[box]
    dx, dy = bx - ax, by - ay
    length = math.hypot(dx, dy) + 1e-6
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / length**2, 0.0, 1.0)
    radius = radii[0] + (radii[1] - radii[0]) * along
    distance = np.hypot(x - ax - along * dx, y - ay - along * dy)
    u = np.clip(((x - ax) * dy - (y - ay) * dx) / (length * radius), -1.0, 1.0)
    _blend(canvas, box, np.clip(radius - distance + 0.5, 0.0, 1.0), u, fill(u, along))


def paint_span(canvas: Array, rows: Array, fill: Fill) -> None:
    """Paint an upright shape in place: ``rows`` [R, 3] holds (y, left, right), y ascending."""
    box = _box(canvas, rows[:, 1].min(), rows[0, 0], rows[:, 2].max(), rows[-1, 0])
    if box is None:
        return
    y, x = np.ogrid[box]
    flat = y[:, 0].astype(np.float64)
    left = np.interp(flat, rows[:, 0], rows[:, 1])[:, None]
    right = np.interp(flat, rows[:, 0], rows[:, 2])[:, None]
    alpha = np.clip(np.minimum(x - left, right - x) + 0.5, 0.0, 1.0)
    alpha = alpha * np.clip(np.minimum(y - rows[0, 0], rows[-1, 0] - y) + 0.5, 0.0, 1.0)
    half = np.maximum((right - left) / 2, 0.5)
    u = np.clip((x - (left + right) / 2) / half, -1.0, 1.0)
    v = np.clip((y - rows[0, 0]) / max(rows[-1, 0] - rows[0, 0], 1.0), 0.0, 1.0)
    _blend(canvas, box, alpha, u, fill(u, np.broadcast_to(v, u.shape)))


def _mix(mask: Array, color: Color, accent: Color) -> Array:
    weight = np.asarray(mask, dtype=np.float64)[..., None]
    return (1.0 - weight) * np.array(color) + weight * np.array(accent)


def _plain(color: Color) -> Fill:
    flat = np.array(color)
    return lambda u, v: flat


def _cloth(garment: Garment, yaw: float, top: float, length: float, *, limb: bool = False) -> Fill:
    """The texture of a garment part that begins ``top`` below the head and is ``length`` long.

    On a limb only what wraps all around (bands, checks, dots) shows.
    """

    def fill(u: Array, v: Array) -> Array:
        angle = np.arcsin(u) - yaw  # 0 is the middle of the chest
        angle = np.arctan2(np.sin(angle), np.cos(angle))
        around = (0.05 if limb else 0.13) * angle
        down = top + length * v
        wave = 2 * np.pi / garment.pitch
        if garment.pattern == "bands":
            mask = np.sin(wave * down) > 0
        elif garment.pattern == "checks":
            mask = 0.5 * ((np.sin(wave * down) > 0) + 1.0 * (np.sin(wave * around) > 0))
        elif garment.pattern == "dots":
            mask = (np.sin(wave * down) > 0.2) & (np.sin(wave * around) > 0.2)
        elif limb:
            mask = (np.abs(u) < 0.3) & (garment.pattern == "seam")
        elif garment.pattern == "pinstripe":
            mask = np.sin(wave * around) > 0.25
        elif garment.pattern == "block":
            mask = (np.abs(angle) < 0.75) & (v > 0.22) & (v < 0.58)
        elif garment.pattern == "two_tone":
            mask = v > 0.5
        elif garment.pattern == "open":
            mask = np.abs(angle) < 0.24 + 0.25 * v
        else:
            mask = np.zeros(u.shape)
        return _mix(np.broadcast_to(mask, u.shape), garment.color, garment.accent)

    return fill


def _head(person: Person, yaw: float) -> Fill:
    reach = {"short": 0.62, "bald": 0.0}.get(person.hair_style, 1.1)

    def fill(u: Array, v: Array) -> Array:
        angle = np.arcsin(u) - yaw
        facing = np.cos(angle)
        hair = ((v < 0.26) | (facing < 0.25)) & (v < reach)
        color = _mix(hair, person.skin, person.hair)
        eyes = (np.abs(np.abs(np.arctan2(np.sin(angle), facing)) - 0.42) < 0.17) & (
            np.abs(v - 0.5) < 0.06
        )
        color = np.where((eyes & ~hair)[..., None], np.array(person.hair) * 0.6, color)
        if person.hat in ("cap", "beanie"):
            color = np.where((v < 0.36)[..., None], np.array(person.hat_color), color)
        elif person.hat == "hood":
            hood = (v < 0.2) | (facing < 0.5)
            color = np.where(hood[..., None], np.array(person.top.color), color)
        return color

    return fill


# --- the figure ------------------------------------------------------------------------------


class _Projection:
    """Body coordinates (x to its left, y down from 0 at the head to 1 at the soles, z forward)
    to canvas pixels and depth (greater is nearer to the camera)."""

    def __init__(self, pose: Pose, place: Placement) -> None:
        self.cos, self.sin = math.cos(pose.yaw), math.sin(pose.yaw)
        self.lean = pose.lean
        self.place = place

    def size(self, length: float, y: float) -> float:
        """A width at height ``y`` in pixels: a tilted camera sees the head larger."""
        return length * self.place.height * (1.0 + self.place.tilt * (0.5 - y))

    def point(self, x: float, y: float, z: float) -> tuple[float, float]:
        across = x * self.cos + z * self.sin
        down = y + self.place.tilt * y * (1.0 - y)
        lean = self.lean * (1.0 - y) * self.place.height
        px = self.place.center + self.size(across, y) + lean
        return px, self.place.top + down * self.place.height

    def depth(self, x: float, z: float) -> float:
        return z * self.cos - x * self.sin

    def rows(self, outline: list[tuple[float, float, float]], z: float = 0.0) -> Array:
        """``outline`` holds (y, half width, half depth) of an upright solid -> rows [R, 3]."""
        rows = []
        for y, half_width, half_depth in outline:
            px, py = self.point(0.0, y, z)
            half = self.size(math.hypot(half_width * self.cos, half_depth * self.sin), y)
            rows.append((py, px - half, px + half))
        return np.array(rows)


def draw_person(canvas: Array, person: Person, *, pose: Pose, place: Placement) -> None:
    """Paint ``person`` into ``canvas`` (float32 RGB [H, W, 3] in [0, 1]) in place.

    Parts outside the canvas are cut off. About 3 ms for a canvas of 256 x 128.
    """
    view = _Projection(pose, place)
    build, yaw = person.build, pose.yaw
    parts: list[tuple[float, Callable[[], None]]] = []

    def limb(
        order: float, start: tuple, end: tuple, radii: tuple[float, float], fill: Fill
    ) -> None:
        ends = np.array([view.point(*start), view.point(*end)])
        widths = (view.size(radii[0], start[1]), view.size(radii[1], end[1]))
        parts.append((order, lambda: paint_capsule(canvas, ends, widths, fill)))

    def solid(order: float, outline: list, fill: Fill, z: float = 0.0) -> None:
        rows = view.rows(outline, z)
        parts.append((order, lambda: paint_span(canvas, rows, fill)))

    top, bottom = person.top, person.bottom
    skin = _plain(person.skin)
    hip_y = 0.51
    for side in (-1, 1):
        swing = side * math.sin(pose.phase) * pose.stride
        lift = max(0.0, -side * math.cos(pose.phase)) * pose.stride * 0.25
        hip = (side * 0.045 * build, hip_y, 0.0)
        knee = (side * 0.046 * build, 0.735 - 0.3 * lift, 0.55 * swing + 0.25 * lift)
        ankle = (side * 0.044 * build, 0.955 - lift, swing - 0.35 * lift)
        order = view.depth(hip[0], swing) - 2.0  # legs always come before the torso
        covered = bottom.kind == "trousers" and top.kind != "dress"
        thigh = (
            _cloth(bottom, yaw, hip_y, 0.225, limb=True)
            if covered or (bottom.kind == "shorts" and top.kind != "dress")
            else skin
        )
        shin = _cloth(bottom, yaw, 0.735, 0.22, limb=True) if covered else skin
        wide = 1.0 if covered else 0.82
        limb(order, knee, ankle, (0.036 * build * wide, 0.025 * wide), shin)
        limb(order + 1e-3, hip, knee, (0.052 * build, 0.037 * build), thigh)
        toe = (ankle[0], ankle[1] + 0.022, ankle[2] + 0.06)
        heel = (ankle[0], ankle[1] + 0.018, ankle[2] - 0.012)
        limb(order + 2e-3, heel, toe, (0.023, 0.018), _plain(person.shoes))

        # An arm swings against the leg of its side.
        back = -side * math.sin(pose.phase) * pose.arm_swing
        shoulder = (side * 0.096 * build, 0.218, 0.0)
        elbow = (side * (0.122 * build + 0.006), 0.345, 0.4 * back - 0.012)
        hand = (side * 0.122 * build, 0.47, back + 0.035)
        order = view.depth(shoulder[0], 0.3 * back) + 0.01
        sleeve = _cloth(top, yaw, 0.19, 0.15, limb=True)
        bare = top.kind in ("short", "dress")
        lower = skin if bare else _cloth(top, yaw, 0.34, 0.13, limb=True)
        limb(order, elbow, hand, (0.024 * build, 0.019), lower)
        limb(order + 1e-3, shoulder, elbow, (0.031 * build, 0.026 * build), sleeve)
        palm = (hand[0], hand[1] + 0.018, hand[2])
        limb(order + 2e-3, hand, palm, (0.017, 0.017), skin)
        if person.bag == "hand" and side == person.bag_side:
            strap = (palm[0], palm[1] + 0.03, palm[2])
            low = (palm[0], palm[1] + 0.12, palm[2])
            limb(order + 3e-3, strap, low, (0.045, 0.058), _plain(person.bag_color))

    hem = {"coat": 0.70, "dress": 0.68}.get(top.kind, 0.545)
    flare = 1.25 if top.kind == "dress" else 1.08
    torso = [
        (0.162, 0.040 * build, 0.040),
        (0.182, 0.085 * build, 0.052 * build),
        (0.215, 0.106 * build, 0.064 * build),
        (0.30, 0.104 * build, 0.072 * build),
        (0.40, 0.088 * build, 0.066 * build),
        (0.50, 0.096 * build, 0.072 * build),
    ]
    torso.append((hem, 0.098 * build * flare, 0.074 * build * flare))
    if bottom.kind in ("skirt", "long_skirt") and top.kind != "dress":
        skirt_hem = 0.72 if bottom.kind == "skirt" else 0.90
        spread = 0.115 * build + 0.12 * pose.stride
        skirt = [(0.49, 0.09 * build, 0.07 * build), (skirt_hem, spread, spread)]
        solid(-1.0, skirt, _cloth(bottom, yaw, 0.49, skirt_hem - 0.49))
    solid(0.0, torso, _cloth(top, yaw, 0.165, hem - 0.165))
    _bags(person, view, solid, limb)

    limb(0.014, (0.0, 0.13, 0.0), (0.0, 0.18, 0.005), (0.03, 0.036), skin)
    head = [
        (0.082 + 0.074 * math.sin(t), 0.052 * math.cos(t), 0.060 * math.cos(t))
        for t in np.linspace(-1.5, 1.5, 11)
    ]
    solid(0.02, head, _head(person, yaw), z=0.012)
    hair = _plain(person.hair)
    if person.hair_style == "long":
        mane = [(0.05, 0.05, 0.03), (0.15, 0.066, 0.04), (0.27, 0.058, 0.03)]
        solid(-0.06 * view.cos, mane, hair, z=-0.035)
    elif person.hair_style == "tail":
        limb(-0.06 * view.cos, (0.0, 0.06, -0.055), (0.0, 0.21, -0.085), (0.024, 0.014), hair)
    if person.hat == "cap":
        brim = _plain(person.hat_color)
        limb(0.021 * view.cos, (0.0, 0.058, 0.03), (0.0, 0.066, 0.105), (0.024, 0.014), brim)

    for _, paint in sorted(parts, key=lambda part: part[0]):
        paint()


def _bags(person: Person, view: _Projection, solid: Callable, limb: Callable) -> None:
    """Add the backpack (with its straps on the chest) or the shoulder bag to the parts."""
    fill = _plain(person.bag_color)
    if person.bag == "backpack":
        pack = [(0.20, 0.06, 0.03), (0.23, 0.082, 0.05), (0.43, 0.088, 0.058), (0.46, 0.07, 0.04)]
        solid(-0.12 * view.cos, pack, fill, z=-0.105)
        for side in (-1, 1):
            start, end = (side * 0.062, 0.185, 0.05), (side * 0.072, 0.36, 0.06)
            limb(0.012 * view.cos, start, end, (0.013, 0.011), fill)
    elif person.bag == "shoulder":
        x = person.bag_side * 0.135 * person.build
        order = view.depth(x, 0.0) + 0.03
        limb(order, (x, 0.45, 0.0), (x, 0.53, 0.0), (0.05, 0.055), fill)
        for z in (0.075, -0.075):
            limb(z * view.cos, (-0.5 * x, 0.185, z), (x, 0.45, z), (0.010, 0.010), fill)
