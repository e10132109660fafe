# SPDX-License-Identifier: Apache-2.0
"""Images of a gallery with what is known of them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ppcls_ise.errors import DataError


class GalleryImage(NamedTuple):
    """An image and the names of its camera and its tracklet, "" where it is in none."""

    path: str
    camera: str = ""
    tracklet: str = ""


def images_of(
    paths: Sequence[str],
    cameras: Sequence[str] | None = None,
    tracklets: Sequence[str] | None = None,
) -> list[GalleryImage]:
    """One `GalleryImage` per path.

    Raises:
        DataError: not as many cameras or tracklets as paths.
    """
    columns = []
    for kind, given in (("cameras", cameras), ("tracklets", tracklets)):
        names = [""] * len(paths) if given is None else [str(name) for name in given]
        if len(names) != len(paths):
            raise DataError(f"{len(paths)} images need as many {kind}, got {len(names)}")
        columns.append(names)
    return [GalleryImage(*row) for row in zip(paths, *columns, strict=True)]


def tracklet_numbers(names: Sequence[str]) -> np.ndarray | None:
    """Tracklets of N images by name, "" = in none, as numbers [N] int64, -1 = in none; None if no
    image is in one."""
    order: dict[str, int] = {"": -1}
    numbers = [order.setdefault(name, len(order) - 1) for name in names]
    return np.array(numbers, np.int64) if len(order) > 1 else None


def rows_like(
    gallery: Sequence[GalleryImage], queries: Iterable[GalleryImage], keys: Sequence[str]
) -> Iterator[np.ndarray]:
    """For every query, the rows of the images of the gallery that share something with it.

    Args:
        gallery: images, for instance `GallerySearch.images`.
        queries: images, of the gallery or not.
        keys: any of "path", "camera" and "tracklet"; one of them equal is enough. An unknown
            camera or tracklet is like no other.
    """
    tables: dict[str, dict[str, list[int]]] = {key: defaultdict(list) for key in keys}
    for row, image in enumerate(gallery):
        for key, table in tables.items():
            table[getattr(image, key)].append(row)
    arrays = {
        (key, name): np.array(rows, np.int64)
        for key, table in tables.items()
        for name, rows in table.items()
        if name
    }
    nothing = np.zeros(0, np.int64)
    for query in queries:
        yield np.concatenate(
            [nothing, *(arrays.get((key, getattr(query, key)), nothing) for key in keys)]
        )
