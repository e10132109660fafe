# SPDX-License-Identifier: Apache-2.0
"""Cameras for synthetic pedestrians: where they look, and what they do to an image.

Every camera has its own scene, light, color cast, viewpoint, sharpness and resolution. The levels
of each property are spread evenly over the cameras and shuffled, so that the difficulty depends
little on the seed. Images are float32 RGB in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

Array = np.ndarray
SCENES = ("brick", "glass", "hedge", "panels", "plaster", "fence")
STREET = 0.45  # the gray to which a small gap pulls the scenes
GROUNDS = ("asphalt", "tiles", "grass", "paving")


@dataclass(frozen=True)
class Camera:
    """One camera; ``gains`` are per RGB channel, ``resolution`` is relative to the output."""

    number: int
    scene: Array
    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    gradient: tuple[float, float]
    heading: float
    tilt: float
    resolution: float
    blur: float
    noise: float
    quality: int


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Array:
    """Noise of ``shape`` in [0, 1] whose bumps are about ``shape[1] / cells`` pixels wide."""
    rows = max(2, round(cells * shape[0] / shape[1]))
    coarse = rng.random((rows, max(2, cells))).astype(np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _tone(rng: np.random.Generator, low: float, high: float) -> Array:
    return np.clip(rng.uniform(low, high) + rng.normal(0.0, 0.06, 3), 0.02, 0.98)


def _wall(rng: np.random.Generator, kind: str, y: Array, x: Array) -> Array:
    """Where the second color of a wall shows: [h, w] in [0, 1]."""
    period = rng.uniform(14.0, 34.0)
    if kind == "brick":
        row = np.floor(y / (0.5 * period))
        seam = (y % (0.5 * period) < 2.0) | ((x + row * 0.5 * period) % period < 2.0)
        return seam.astype(np.float32) * 0.8
    if kind == "glass":
        period *= 2.2
        return ((y % period > 5.0) & (x % period > 5.0)).astype(np.float32)
    if kind == "hedge":
        noise = smooth_noise(rng, (y.shape[0], x.shape[1]), 90)
        return (noise > 0.5).astype(np.float32) * 0.7 + 0.3 * noise
    if kind == "panels":
        return ((np.floor(x / (1.6 * period)) % 2) * np.ones_like(y)).astype(np.float32)
    if kind == "fence":
        return ((x % (0.6 * period) < 3.0) | (y % (3.5 * period) < 3.0)).astype(np.float32)
    return (y > rng.uniform(0.5, 0.8) * y.shape[0]).astype(np.float32) * np.ones_like(x)


def _scene(rng: np.random.Generator, index: int, shape: tuple[int, int]) -> Array:
    """A street scene [H, W, 3]: a wall above, ground below, a few uprights in front of it."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    kind = SCENES[index % len(SCENES)]
    base, second = _tone(rng, 0.25, 0.75), _tone(rng, 0.1, 0.9)
    if kind == "hedge":
        base, second = np.array((0.12, 0.2, 0.08)), np.array((0.3, 0.42, 0.2))
    mask = _wall(rng, kind, y, x)[..., None]
    scene = base * (1 - mask) + second * mask

    ground = GROUNDS[int(rng.integers(len(GROUNDS)))]
    tone = np.array((0.28, 0.38, 0.2)) if ground == "grass" else _tone(rng, 0.35, 0.7)
    floor = np.broadcast_to(tone, (*shape, 3)).copy()
    horizon = rng.uniform(0.38, 0.68) * height
    if ground in ("tiles", "paving"):
        # Rows get higher towards the viewer, as in perspective.
        far = np.maximum(y - horizon, 0.0)
        lines = np.sin(14.0 * np.sqrt(far / height + 0.02) * 2 * np.pi) > 0.9
        if ground == "tiles":
            lines |= (x + 0.4 * far) % 30.0 < 2.0
        floor *= np.where(lines, 0.75, 1.0)[..., None]
    floor *= (0.8 + 0.4 * smooth_noise(rng, shape, 160))[..., None]
    scene = np.where((y > horizon)[..., None], floor, scene)

    for _ in range(int(rng.integers(4, 9))):  # doors, poles, parked things
        left, wide = rng.uniform(0, width), rng.uniform(6.0, 60.0)
        high = rng.uniform(0.3, 0.9) * height
        inside = (x > left) & (x < left + wide) & (y < horizon + 20) & (y > horizon + 20 - high)
        scene = np.where(inside[..., None], _tone(rng, 0.1, 0.85), scene)
    scene *= (0.75 + 0.5 * smooth_noise(rng, shape, 8))[..., None]
    scene = cv2.GaussianBlur(scene.astype(np.float32), (0, 0), 1.2)
    return np.clip(scene, 0.0, 1.0)


def make_cameras(
    rng: np.random.Generator, count: int, *, canvas: tuple[int, int], gap: float
) -> list[Camera]:
    """``count`` cameras for crops drawn on a canvas of (height, width) pixels.

    ``gap`` scales how far their light, color and scenes are apart: 0 is no difference, 1 is what
    a small network can learn to bridge without labels, 4 is day against night.
    """

    def levels(low: float, high: float) -> Array:
        spread = np.linspace(low, high, count) if count > 1 else np.array([(low + high) / 2])
        return rng.permutation(spread)

    warmth, tint = gap * levels(-0.06, 0.06), gap * levels(-0.025, 0.025)
    brightness, gamma = 1.0 + gap * levels(-0.08, 0.07), np.exp(gap * levels(-0.08, 0.08))
    contrast, saturation = 0.95 + gap * levels(-0.08, 0.05), 0.95 + gap * levels(-0.1, 0.06)
    slope, resolution = gap * levels(-0.09, 0.09), levels(0.42, 0.95)
    blur, noise, quality = levels(0.3, 1.0), levels(0.004, 0.018), levels(50, 92)
    tilt, headings = levels(-0.02, 0.3), levels(0.0, 2 * math.pi * (1 - 1 / count))
    cameras = []
    for i in range(count):
        gains = np.array((1 + warmth[i], 1 + tint[i], 1 - warmth[i])) * brightness[i]
        scene = _scene(rng, i, (canvas[0] * 5 // 4, canvas[1] * 4))
        cameras.append(
            Camera(
                number=i + 1,
                scene=(STREET + min(1.0, 0.3 * gap) * (scene - STREET)).astype(np.float32),
                gains=(float(gains[0]), float(gains[1]), float(gains[2])),
                gamma=float(gamma[i]),
                contrast=float(contrast[i]),
                saturation=float(max(0.0, saturation[i])),
                gradient=(float(slope[i]), float(gap * rng.uniform(-0.06, 0.06))),
                heading=float(headings[i]),
                tilt=float(tilt[i]),
                resolution=float(resolution[i]),
                blur=float(blur[i]),
                noise=float(noise[i]),
                quality=int(quality[i]),
            )
        )
    return cameras


def background(rng: np.random.Generator, camera: Camera, canvas: tuple[int, int]) -> Array:
    """A window of the camera's scene as a new float32 canvas [H, W, 3]."""
    top = int(rng.integers(camera.scene.shape[0] - canvas[0] + 1))
    left = int(rng.integers(camera.scene.shape[1] - canvas[1] + 1))
    return camera.scene[top : top + canvas[0], left : left + canvas[1]].copy()


def cast_shadow(canvas: Array, rng: np.random.Generator, feet: tuple[float, float]) -> None:
    """Darken the ground under ``feet`` (x, y) and, now and then, a slanted half of the image."""
    height, width = canvas.shape[:2]
    y, x = np.ogrid[0:height, 0:width]
    away = ((x - feet[0]) / (0.19 * height)) ** 2 + ((y - feet[1]) / (0.03 * height)) ** 2
    canvas *= (1.0 - 0.45 * np.exp(-away))[..., None].astype(np.float32)
    if rng.random() < 0.15:
        edge = rng.uniform(0.2, 0.8) * height + rng.uniform(-1.0, 1.0) * (x - width / 2)
        side = np.clip((y - edge) / 6.0 * rng.choice((-1.0, 1.0)) + 0.5, 0.0, 1.0)
        canvas *= (1.0 - 0.4 * side)[..., None].astype(np.float32)


def occlude(canvas: Array, rng: np.random.Generator) -> None:
    """Put a pole, a low barrier or foliage in front of the person, in place."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    kind = int(rng.integers(3))
    color = _tone(rng, 0.1, 0.8)
    if kind == 0:
        left = rng.uniform(0.1, 0.85) * width
        mask = (x > left) & (x < left + rng.uniform(0.06, 0.15) * width)
        noise = 0.9
    elif kind == 1:
        mask = y > rng.uniform(0.62, 0.85) * height
        color = color * (0.8 + 0.2 * ((y // 9) % 2))[..., None]
        noise = 0.8
    else:
        bumps = smooth_noise(rng, (height, width), 14)
        corner = (x / width - rng.choice((0.0, 1.0))) ** 2 + (y / height - rng.random()) ** 2
        mask = corner + 0.12 * bumps < rng.uniform(0.1, 0.2)
        color, noise = np.array((0.16, 0.27, 0.11)), 0.4
    texture = noise + (1.1 - noise) * smooth_noise(rng, (height, width), 30)
    canvas[:] = np.where(mask[..., None], np.clip(color * texture[..., None], 0, 1), canvas)


@dataclass(frozen=True)
class Exposure:
    """What a camera does differently from one image to the next, as factors of its own values.

    ``motion`` is whether the image is blurred along the walking direction.
    """

    scale: float
    blur: float
    motion: bool
    light: float
    tint: tuple[float, float, float]
    gamma: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Exposure:
        """That of an image which has nothing to do with any other."""
        scale, blur = rng.uniform(0.75, 1.15), rng.uniform(0.6, 1.4)
        motion, light = rng.random() < 0.2, rng.uniform(0.85, 1.15)
        tint = rng.normal(1.0, 0.02, 3)
        gamma = rng.uniform(0.92, 1.08)
        return cls(
            float(scale),
            float(blur),
            bool(motion),
            float(light),
            (float(tint[0]), float(tint[1]), float(tint[2])),
            float(gamma),
        )


def observe(
    canvas: Array,
    camera: Camera,
    *,
    size: tuple[int, int],
    rng: np.random.Generator,
    exposure: Exposure | None = None,
) -> bytes:
    """Photograph ``canvas`` through ``camera`` -> the bytes of a JPEG of ``size`` (h, w).

    Without an ``exposure`` one is drawn from ``rng``, which makes the noise too.
    """
    height, width = size
    exposure = exposure or Exposure.draw(rng)
    scale = float(np.clip(camera.resolution * exposure.scale, 0.25, 1.0))
    native = (max(4, round(width * scale)), max(8, round(height * scale)))
    image = cv2.resize(canvas, native, interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), max(0.15, camera.blur * scale * exposure.blur))
    if exposure.motion:
        image = cv2.blur(image, (max(2, round(0.07 * native[0])), 1))

    x = np.linspace(-1.0, 1.0, native[0], dtype=np.float32)[None, :]
    y = np.linspace(-1.0, 1.0, native[1], dtype=np.float32)[:, None]
    light = (1.0 + camera.gradient[0] * x + camera.gradient[1] * y) * exposure.light
    image = image * light[..., None] * (np.array(camera.gains) * np.array(exposure.tint))
    image = np.clip(image, 0.0, 1.0) ** (camera.gamma * exposure.gamma)
    gray = image.mean(axis=2, keepdims=True)
    image = gray + (image - gray) * camera.saturation
    image = 0.5 + (image - 0.5) * camera.contrast + rng.normal(0.0, camera.noise, image.shape)
    final = cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    pixels = np.rint(np.clip(final, 0.0, 1.0) * 255.0).astype(np.uint8)
    quality = int(np.clip(camera.quality + rng.integers(-8, 9), 30, 95))
    encoded, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode an image of {height} x {width} pixels.")
    return data.tobytes()
