# SPDX-License-Identifier: Apache-2.0
"""Identities for synthetic pedestrians: a conjunction of clothing, hair, hats and bags.

Colors come from a short palette, so that many identities share one or two of their colors and
only the conjunction tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]

# The colors people wear, with how often: few and uneven, so one color alone separates few people.
CLOTH = (
    ((28, 28, 32), 4), ((70, 72, 78), 3), ((135, 137, 140), 2), ((228, 228, 225), 4),
    ((28, 38, 92), 4), ((44, 88, 168), 3), ((122, 172, 220), 2), ((182, 32, 38), 3),
    ((100, 24, 40), 2), ((44, 104, 56), 2), ((112, 112, 56), 2), ((196, 170, 122), 2),
    ((112, 70, 40), 2), ((222, 130, 160), 2), ((230, 190, 50), 2), ((100, 58, 136), 2),
)  # fmt: skip
HAIR = ((22, 18, 16), (40, 28, 20), (88, 56, 34), (170, 128, 74), (128, 126, 124))
SKIN = ((232, 190, 162), (214, 166, 132), (178, 126, 92), (122, 82, 58), (82, 54, 42))
TOP_PATTERNS = ("plain", "bands", "pinstripe", "checks", "block", "two_tone", "open", "dots")
TOP_WEIGHTS = (0.26, 0.14, 0.08, 0.12, 0.14, 0.10, 0.11, 0.05)


@dataclass(frozen=True)
class Garment:
    """Cloth: ``kind`` is the cut, ``pattern`` what is printed on it in ``accent``."""

    kind: str
    pattern: str
    color: Color
    accent: Color
    pitch: float  # period of the pattern, in body heights


@dataclass(frozen=True)
class Person:
    """The attributes that make an identity; nothing here changes between two of its images."""

    build: float
    stature: float
    skin: Color
    hair_style: str
    hair: Color
    top: Garment
    bottom: Garment
    shoes: Color
    hat: str
    hat_color: Color
    bag: str
    bag_color: Color
    bag_side: int


def _jittered(rng: np.random.Generator, rgb: tuple[int, ...], spread: float = 0.035) -> Color:
    values = np.clip(np.array(rgb) / 255.0 + rng.normal(0.0, spread, 3), 0.02, 0.98)
    return (float(values[0]), float(values[1]), float(values[2]))


def _cloth_color(rng: np.random.Generator) -> Color:
    weights = np.array([weight for _, weight in CLOTH], dtype=np.float64)
    index = int(rng.choice(len(CLOTH), p=weights / weights.sum()))
    return _jittered(rng, CLOTH[index][0])


def _accent(rng: np.random.Generator, color: Color) -> Color:
    """A cloth color that can be told from ``color``, so that the pattern is visible."""
    accent = color
    while max(abs(a - c) for a, c in zip(accent, color, strict=True)) < 0.28:
        accent = _cloth_color(rng)
    return accent


def _choice(rng: np.random.Generator, names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    return names[int(rng.choice(len(names), p=np.array(weights) / sum(weights)))]


def sample_person(rng: np.random.Generator) -> Person:
    """Draw the attributes of one identity."""
    color = _cloth_color(rng)
    top = Garment(
        kind=_choice(rng, ("short", "long", "coat", "dress"), (0.36, 0.42, 0.12, 0.10)),
        pattern=_choice(rng, TOP_PATTERNS, TOP_WEIGHTS),
        color=color,
        accent=_accent(rng, color),
        pitch=float(rng.uniform(0.045, 0.09)),
    )
    color = _cloth_color(rng)
    bottom = Garment(
        kind=_choice(rng, ("trousers", "shorts", "skirt", "long_skirt"), (0.60, 0.20, 0.13, 0.07)),
        pattern=_choice(rng, ("plain", "seam", "checks"), (0.78, 0.12, 0.10)),
        color=color,
        accent=_accent(rng, color),
        pitch=float(rng.uniform(0.05, 0.08)),
    )
    return Person(
        build=float(rng.uniform(0.85, 1.25)),
        stature=float(rng.uniform(0.92, 1.04)),
        skin=_jittered(rng, SKIN[int(rng.integers(len(SKIN)))], 0.02),
        hair_style=_choice(rng, ("short", "long", "tail", "bald"), (0.48, 0.28, 0.16, 0.08)),
        hair=_jittered(rng, HAIR[int(rng.integers(len(HAIR)))], 0.02),
        top=top,
        bottom=bottom,
        shoes=_cloth_color(rng),
        hat=_choice(rng, ("none", "cap", "beanie", "hood"), (0.76, 0.11, 0.07, 0.06)),
        hat_color=_cloth_color(rng),
        bag=_choice(rng, ("none", "backpack", "shoulder", "hand"), (0.42, 0.28, 0.18, 0.12)),
        bag_color=_cloth_color(rng),
        bag_side=int(rng.choice((-1, 1))),
    )
