# SPDX-License-Identifier: Apache-2.0
"""Tracklets: a tracker's runs of frames, each of one person unless the tracker slipped."""

from __future__ import annotations

import numpy as np

from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.neighbors import search
from ppcls_ise.clustering.row_set import unit_rows

# A tracklet is split into two parts of at least so many frames, and of this share of its frames.
_LEAST_PART, _LEAST_SHARE = 2, 0.2
# Quartiles of fewer tracklets say nothing.
_LEAST_TRACKLETS = 8
# Beyond the upper quartile by so many interquartile ranges: Tukey's "far out".
_FAR_OUT = 3.0


def tracklet_array(
    tracklet_ids: np.ndarray, count: int, camera_ids: np.ndarray | None = None
) -> np.ndarray:
    """Tracklets as numbers 0 .. T-1, [N] int64, in the order of their ids.

    An id below 0 means that the image is in no tracklet: it becomes one of its own, numbered after
    all others.

    Args:
        tracklet_ids: [N] integers.
        count: N.
        camera_ids: [N] integers, to check that no tracklet is in two cameras, or None.

    Raises:
        ValueError: not one integer per image, or a tracklet that is in two cameras.
    """
    tracklets = np.asarray(tracklet_ids)
    if tracklets.shape != (count,) or (count and tracklets.dtype.kind not in "iu"):
        raise ValueError(
            f"tracklet_ids must be {count} integers, one per image, got {tracklets.dtype} of "
            f"shape {tracklets.shape}"
        )
    numbers = np.empty(count, dtype=np.int64)
    known = tracklets >= 0
    names, place = np.unique(tracklets[known], return_inverse=True)
    numbers[known] = place.reshape(-1)
    numbers[~known] = len(names) + np.arange(np.count_nonzero(~known))
    if camera_ids is not None and count:
        cameras = np.asarray(camera_ids)
        first = cameras[np.unique(numbers, return_index=True)[1]]
        wrong = np.flatnonzero(first[numbers] != cameras)
        if len(wrong):
            raise ValueError(
                f"tracklet {tracklets[wrong[0]]} has images of two cameras: tracklets of different "
                "cameras need different numbers"
            )
    return numbers


def mixed_tracklets(features: np.ndarray, tracklets: np.ndarray) -> np.ndarray:
    """Tracklets that seem to show two people one after the other, Clustering (20).

    A tracklet's jump is the largest squared distance between the mean of its first frames and that
    of the rest, over all cuts that leave at least 2 frames and a fifth of them on both sides.
    A pose or an occlusion comes and goes, a slip does not come back. Mixed is a tracklet whose jump

    * lies beyond the upper quartile of all jumps by more than 3 interquartile ranges (Tukey,
      "Exploratory Data Analysis", 1977), and
    * is longer than it is, for the median tracklet, from its mean to that of the nearest other one.

    Args:
        features: [N, D], unit rows; those of a tracklet in the order of time.
        tracklets: [N] numbers 0 .. T-1, none left out.

    Returns:
        Ascending numbers, int64; none if fewer than 8 tracklets have 4 frames. O(N·D + T²·D) time.
    """
    runs = _runs(tracklets)
    long = [run for run, rows in enumerate(runs) if len(rows) >= 2 * _LEAST_PART]
    if len(long) < _LEAST_TRACKLETS:
        return np.empty(0, dtype=np.int64)
    jumps = np.array([_jump(features[runs[run]].astype(np.float64)) for run in long])
    means = np.array([features[rows].mean(axis=0, dtype=np.float64) for rows in runs])
    nearest = search(unit_rows(means.astype(np.float32)), 2)[0]
    own = nearest[:, 0] == np.arange(len(runs))
    gap = means - means[np.where(own, nearest[:, 1], nearest[:, 0])]
    lower, upper = np.percentile(jumps, [25, 75])
    bound = max(upper + _FAR_OUT * (upper - lower), np.median((gap * gap).sum(axis=1)))
    return np.array(long, dtype=np.int64)[jumps > bound]


def _runs(tracklets: np.ndarray) -> list[np.ndarray]:
    """The rows of every tracklet, ascending."""
    order = np.argsort(tracklets, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(tracklets[order])) + 1)


def _jump(frames: np.ndarray) -> float:
    """Largest squared distance between the means before and after a cut of [n, D]."""
    count = len(frames)
    least = max(_LEAST_PART, int(count * _LEAST_SHARE))
    before = np.arange(least, count - least + 1)[:, None]
    sums = np.cumsum(frames, axis=0)
    head = sums[least - 1 : count - least]
    gap = head / before - (sums[-1] - head) / (count - before)
    return float((gap * gap).sum(axis=1).max())


def one_label_per_tracklet(
    labels: np.ndarray,
    tracklets: np.ndarray,
    free: np.ndarray | None = None,
    *,
    alone: int | None = None,
) -> np.ndarray:
    """Every frame gets the label that most labeled frames of its tracklet have, Clustering (21).

    Of labels with equally many frames the lowest wins. A tracklet without any labeled frame becomes
    a cluster of its own if it has ``alone`` frames: they are one person all the same. What is left
    of the labels is numbered anew in the old order, clusters of one tracklet after all others.

    Args:
        labels: [N] int64, -1 = outlier.
        tracklets: [N] numbers 0 .. T-1, none left out.
        free: numbers of tracklets whose frames keep their own labels.
        alone: None: a tracklet without any labeled frame stays without.

    Returns:
        labels [N] int64. O(N log N) time.
    """
    voting = np.flatnonzero(labels != OUTLIER)
    pairs, votes = np.unique(
        np.stack([tracklets[voting], labels[voting]], axis=1), axis=0, return_counts=True
    )
    # By tracklet, then most votes, then lowest label: the first of each tracklet has won.
    order = np.lexsort((pairs[:, 1], -votes, pairs[:, 0]))
    winners, first = np.unique(pairs[order, 0], return_index=True)
    frames = np.bincount(tracklets)
    winner = np.full(len(frames), OUTLIER, dtype=np.int64)
    winner[winners] = pairs[order[first], 1]
    if alone is not None:
        single = np.flatnonzero((winner == OUTLIER) & (frames >= alone))
        winner[single] = labels.max(initial=OUTLIER) + 1 + np.arange(len(single))
    result = winner[tracklets]
    if free is not None:
        kept = np.isin(tracklets, free)
        result[kept] = labels[kept]
    labeled = result != OUTLIER
    result[labeled] = np.unique(result[labeled], return_inverse=True)[1].reshape(-1)
    return result
