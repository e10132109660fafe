# SPDX-License-Identifier: Apache-2.0
"""Ranked lists and clusterings as pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from ppcls_ise.clustering.eps_range import LEAST_STABILITY, EpsRange
from ppcls_ise.data.images import read_image
from ppcls_ise.errors import DataError
from ppcls_ise.metrics import Side, nearest_images
from ppcls_ise.utils.files import replacing

_RIGHT, _WRONG, _NEUTRAL = (0, 150, 60), (210, 40, 40), (90, 90, 90)
_BORDER, _GAP, _HEIGHT, _WIDTH = 3, 6, 96, 48


def _same_person(query: Side, gallery: Side, row: int) -> np.ndarray:
    if query[1] is None or gallery[1] is None:
        raise DataError("ranked lists are colored by identities, which these images lack")
    return np.equal(gallery[1], query[1][row])


def ranked_lists(
    path: str | Path,
    runs: Sequence[tuple[str, Side, Side]],
    query_images: Sequence[str],
    gallery_images: Sequence[str],
    *,
    rows: Sequence[int],
    count: int = 8,
) -> None:
    """Write a picture of ranked lists: a query per line, its nearest gallery images beside it.

    Right identities have a green border, wrong ones a red one. Several runs (for example before
    and after training) stand side by side.

    Args:
        path: PNG file, written atomically.
        runs: title, query and gallery side of each run.
        query_images, gallery_images: paths in the order of the sides.
        rows: which queries.
        count: gallery images per list.
    """
    cell_w, cell_h = _WIDTH + 2 * _BORDER + 2, _HEIGHT + 2 * _BORDER + 4
    run_w = count * cell_w + 3 * _GAP
    head = 18
    width = cell_w + 2 * _GAP + len(runs) * run_w
    canvas = Image.new("RGB", (width, head + len(rows) * cell_h + _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((_GAP, 3), "query", fill=_NEUTRAL)
    for line, row in enumerate(rows):
        top = head + line * cell_h
        canvas.paste(_framed(query_images[row], _NEUTRAL), (_GAP, top))
        for i, (title, *sides) in enumerate(runs):
            query, gallery = (Side(*side) for side in sides)
            left = cell_w + 3 * _GAP + i * run_w
            if not line:
                draw.text((left, 3), title, fill=_NEUTRAL)
            nearest, _ = nearest_images(query, gallery, row, count)
            for place, index in enumerate(nearest):
                right = bool(_same_person(query, gallery, row)[index])
                picture = _framed(gallery_images[index], _RIGHT if right else _WRONG)
                canvas.paste(picture, (left + place * cell_w, top))
    with replacing(path) as scratch:
        canvas.save(scratch, format="PNG", optimize=True)


def _framed(path: str, color: tuple[int, int, int]) -> Image.Image:
    frame = Image.new("RGB", (_WIDTH + 2 * _BORDER, _HEIGHT + 2 * _BORDER), color)
    image = Image.fromarray(read_image(path))
    frame.paste(image.resize((_WIDTH, _HEIGHT)), (_BORDER, _BORDER))
    return frame


def eps_curves(path: str | Path, result: EpsRange) -> None:
    """Write a plot of a range of eps as PNG: clusters, outliers and largest cluster, stability.

    The stable range is shaded, the recommended eps is a line.
    """
    eps = [point.eps for point in result.points]
    figure = Figure(figsize=(6, 6), layout="constrained")
    clusters, shares, stability = figure.subplots(3, sharex=True)
    clusters.plot(eps, [point.num_clusters for point in result.points], "o-")
    clusters.set_ylabel("clusters")
    for name, label in (("outlier_share", "outliers"), ("largest_share", "largest cluster")):
        values = [100 * getattr(point, name) for point in result.points]
        shares.plot(eps, values, "o-", label=label)
    shares.set_ylabel("% of the images")
    shares.legend()
    stability.plot(eps, [point.stability for point in result.points], "o-")
    stability.axhline(LEAST_STABILITY, color="gray", linestyle=":")
    stability.set_ylabel("stability")
    stability.set_xlabel("eps")
    for axes in (clusters, shares, stability):
        if result.plateau is not None and result.recommended is not None:
            axes.axvspan(*result.plateau, alpha=0.1)
            axes.axvline(result.recommended, color="green")
    with replacing(path) as scratch:
        figure.savefig(scratch, format="png", dpi=100)
