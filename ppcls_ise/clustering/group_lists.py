# SPDX-License-Identifier: Apache-2.0
"""Neighbor lists within and across cameras and tracklets."""

from __future__ import annotations

import numpy as np

from ppcls_ise.clustering.membership import Lists
from ppcls_ise.clustering.neighbors import Backend, search
from ppcls_ise.clustering.parallel import Progress, equal_work
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, deal
from ppcls_ise.clustering.row_set import RowSet, inner_products, row_norms
from ppcls_ise.clustering.similarity_order import pair_products

# A search has costs of its own: a place is compared pair by pair up to so many multiplications.
_SMALL_WORK = 1 << 22
_BLOCK_PAIRS = 1 << 20


def group_lists(
    features: np.ndarray,
    lengths: tuple[int, int],
    *,
    tracklets: np.ndarray | None = None,
    cameras: np.ndarray | None = None,
    backend: str | Backend = "auto",
    processes: Processes = ONE_PROCESS,
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
        processes: see there.
        progress: called as progress("neighbors", done, total) during the search across.

    Returns:
        The lists within and across: each (indices [N, k] int64, similarities [N, k] float32).
    """
    within, across = lengths
    places = cameras if tracklets is None else tracklets
    assert places is not None
    near = [_within(features, places, within, None, backend, processes)]
    if tracklets is not None and cameras is not None:
        near.append(_within(features, cameras, within, tracklets, backend, processes))
        places = cameras
    far = search(
        features, across, groups=places, backend=backend, processes=processes, progress=progress
    )
    return near, [far]


def _within(
    features: np.ndarray,
    places: np.ndarray,
    k: int,
    apart: np.ndarray | None,
    backend: str | Backend,
    processes: Processes,
) -> Lists:
    """Nearest rows of the same place, of another part of it if ``apart`` [N] numbers its parts."""
    count = len(features)
    lists = (
        np.full((count, k), -1, dtype=np.int64),
        np.full((count, k), -np.inf, dtype=np.float32),
    )
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=-1)) if count else order
    sizes = np.diff(starts, append=count)
    small = sizes**2 * features.shape[1] <= _SMALL_WORK
    for start, size in zip(starts[~small], sizes[~small], strict=True):
        rows = order[start : start + size]
        found, values = search(
            features if size == count else features[rows],
            k,
            groups=None if apart is None else apart[rows],
            backend=backend,
            processes=processes,
        )
        lists[0][rows, : found.shape[1]] = np.where(found < 0, -1, rows[found])
        lists[1][rows, : values.shape[1]] = values
    work = np.concatenate([[0], np.cumsum(sizes[small] ** 2)])
    compared = [order[:0]]
    for first, last in deal(equal_work(work, _BLOCK_PAIRS), processes):
        begin, size = starts[small][first:last], sizes[small][first:last]
        compared.append(_compare_all(features, order, begin, size, apart, lists))
    own = np.concatenate(compared)
    every = processes.whole(own)
    for each in lists if processes.size > 1 else ():
        each[every] = processes.whole(each[own])
    return lists


def _compare_all(
    features: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    apart: np.ndarray | None,
    lists: Lists,
) -> np.ndarray:
    """Fill in the lists of small places, whose rows are stretches of ``order``, by all pairs;
    returns the rows."""
    member = np.repeat(sizes, sizes)  # of every row, how many rows its place has
    begin = np.repeat(starts, sizes)
    within = np.arange(len(member)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = order[begin + within]
    left = np.repeat(rows, member)
    offset = np.arange(member.sum()) - np.repeat(np.cumsum(member) - member, member)
    right = order[np.repeat(begin, member) + offset]
    if apart is not None:
        other = apart[left] != apart[right]
        left, right = left[other], right[other]
    products = pair_products(RowSet(features, None, row_norms(features[:0])), left, right)
    by_list = np.lexsort((right, -products, left))
    left, right = left[by_list], right[by_list]
    rank = np.arange(len(left)) - np.searchsorted(left, left)
    kept = rank < lists[0].shape[1]
    left, right, rank = left[kept], right[kept], rank[kept]
    lists[0][left, rank] = right
    lists[1][left, rank] = inner_products(features, left, right)
    return rows
