# SPDX-License-Identifier: Apache-2.0
"""Tracklets in a list of images: their order, their numbers, fewer of their frames."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.errors import ConfigError

_NUMBER = re.compile(r"(\d+)", re.ASCII)


def in_order(records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Ascending by path, and the frames of a tracklet by time.

    A tracklet keeps the places that its paths have; in them, its frames stand by the numbers in
    their paths (``frame9`` before ``frame10``). With numbers of one length that changes nothing.
    """
    ordered = sorted(records, key=lambda record: record.path)
    for rows in _rows_of(ordered).values():
        frames = sorted((ordered[row] for row in rows), key=lambda record: _natural(record.path))
        for row, frame in zip(rows, frames, strict=True):
            ordered[row] = frame
    return ordered


def _rows_of(records: Sequence[ImageRecord]) -> dict[tuple[int | None, str], list[int]]:
    """The rows of every tracklet, ascending; keys in order of first appearance."""
    rows = defaultdict(list)
    for row, record in enumerate(records):
        if record.tracklet is not None:
            rows[record.camid, record.tracklet].append(row)
    return rows


def _natural(path: str) -> tuple[list[str | int], str]:
    parts: list[str | int] = list(_NUMBER.split(path))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, path


def check_thinning(owner: str, frame_step: int, max_per_tracklet: int | None) -> None:
    """Refuse numbers that `thin` cannot work with.

    Raises:
        ConfigError: names the key.
    """
    for key, value in (("frame_step", frame_step), ("max_per_tracklet", max_per_tracklet)):
        if value is not None and value < 1:
            raise ConfigError(f"{owner}: {key} has to be at least 1, got {value}")


def thin(
    records: Sequence[ImageRecord], *, frame_step: int = 1, max_per_tracklet: int | None = None
) -> list[ImageRecord]:
    """Fewer frames of every tracklet.

    Args:
        records: as `in_order` gives them. Images in no tracklet are kept.
        frame_step: the first, and every so-many-th frame after it, is kept.
        max_per_tracklet: of those, so many are kept at most, evenly spread from the first to the
            last; if one, the middle one. None: all.

    Raises:
        ConfigError: there is something to thin, and no tracklet.
    """
    if frame_step == 1 and max_per_tracklet is None:
        return list(records)
    tracklets = _rows_of(records)
    if records and not tracklets:
        raise ConfigError(
            "frame_step and max_per_tracklet of the data set need tracklets, and none are known: "
            "name them (tracklet_pattern, tracklet_from_folder or table), or leave both out"
        )
    kept = np.array([record.tracklet is None for record in records], dtype=bool)
    for rows in tracklets.values():
        chosen = rows[::frame_step]
        if max_per_tracklet is not None and len(chosen) > max_per_tracklet:
            ends = (0, len(chosen) - 1) if max_per_tracklet > 1 else (len(chosen) // 2,) * 2
            places = np.linspace(*ends, max_per_tracklet).round().astype(int)
            chosen = [chosen[place] for place in places]
        kept[chosen] = True
    return [record for record, keep in zip(records, kept, strict=True) if keep]


def number_tracklets(
    records: Sequence[ImageRecord], camera_name: Callable[[int], str] = str
) -> tuple[np.ndarray | None, list[str] | None, int]:
    """Numbers 0, 1, ... of the tracklets in order of first appearance.

    Args:
        records: as `in_order` gives them.
        camera_name: the name of a camera by its number.

    Returns:
        int64 [N], -1 = in none; the name of every tracklet, with its camera's where it occurs in
        several cameras; how many such names there are. (None, None, 0) if no image is in a
        tracklet.
    """
    tracklets = _rows_of(records)
    if not tracklets:
        return None, None, 0
    ids = np.full(len(records), -1, dtype=np.int64)
    for number, rows in enumerate(tracklets.values()):
        ids[rows] = number
    uses = Counter(name for _, name in tracklets)
    names = [
        name if camid is None or uses[name] == 1 else f"{name} (camera {camera_name(camid)})"
        for camid, name in tracklets
    ]
    return ids, names, sum(count > 1 for count in uses.values())


def describe(
    tracklet_ids: np.ndarray | None,
    camids: np.ndarray | None,
    camera_name: Callable[[int], str] = str,
) -> str:
    """``6 cameras, 96 tracklets (median 12 frames, …), frames per camera: …`` of N images."""
    text = "no cameras" if camids is None else f"{len(set(camids.tolist()))} cameras"
    if tracklet_ids is None:
        return text
    lengths = np.bincount(tracklet_ids[tracklet_ids >= 0])
    text += (
        f", {len(lengths)} tracklets (median {np.median(lengths):g} frames, shortest "
        f"{lengths.min()}, longest {lengths.max()})"
    )
    if outside := int((tracklet_ids < 0).sum()):
        text += f", {outside} images in none"
    if camids is not None:
        counts = np.unique(camids, return_counts=True)
        pairs = ", ".join(f"{camera_name(int(n))} {m}" for n, m in zip(*counts, strict=True))
        text += f"; frames per camera: {pairs}"
    return text
