# SPDX-License-Identifier: Apache-2.0
"""Neighbor lists within and across cameras and tracklets."""

from __future__ import annotations

import numpy as np

from ppcls_ise.clustering.membership import Lists
from ppcls_ise.clustering.neighbors import Backend, search
from ppcls_ise.clustering.parallel import Progress


def group_lists(
    features: np.ndarray,
    lengths: tuple[int, int],
    *,
    tracklets: np.ndarray | None = None,
    cameras: np.ndarray | None = None,
    backend: str | Backend = "auto",
    progress: Progress | None = None,
) -> tuple[list[Lists], list[Lists]]:
    """Nearest rows of every kind of place, in lists of their own.

    With cameras: those of the own camera (the row itself included), and of all other cameras. With
    tracklets: those of the own tracklet, and of all others. With both: those of the own tracklet
    and of the other tracklets of its camera, and of all other cameras. Lists shorter than asked
    (few images, a single camera) end with index -1.

    Args:
        features: [N, D].
        lengths: of the lists within and across.
        tracklets: [N] integers; no tracklet is in two cameras.
        cameras: [N] integers; one of the two is needed.
        backend: see :func:`ppcls_ise.clustering.k_nearest`.
        progress: called as progress("neighbors", done, total) during the search across.

    Returns:
        The lists within and across: each (indices [N, k] int64, similarities [N, k] float32).
    """
    within, across = lengths
    places = cameras if tracklets is None else tracklets
    assert places is not None
    near = [_within(features, places, within, None, backend)]
    if tracklets is not None and cameras is not None:
        near.append(_within(features, cameras, within, tracklets, backend))
        places = cameras
    return near, [search(features, across, groups=places, backend=backend, progress=progress)]


def _within(
    features: np.ndarray,
    places: np.ndarray,
    k: int,
    apart: np.ndarray | None,
    backend: str | Backend,
) -> Lists:
    """Nearest rows of the same place, of another part of it if ``apart`` [N] numbers its parts."""
    count = len(features)
    indices = np.full((count, k), -1, dtype=np.int64)
    values = np.full((count, k), -np.inf, dtype=np.float32)
    order = np.argsort(places, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
        if not len(rows):
            continue
        found, similarities = search(
            features if len(rows) == count else features[rows],
            k,
            groups=None if apart is None else apart[rows],
            backend=backend,
        )
        # Within a place with one part nothing is found: index -1 stays.
        indices[rows, : found.shape[1]] = np.where(found < 0, -1, rows[found])
        values[rows, : found.shape[1]] = similarities
    return indices, values
