# SPDX-License-Identifier: Apache-2.0
"""What DBSCAN finds over a range of eps, and which eps to take, without any label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from ppcls_ise.clustering.dbscan import OUTLIER, dbscan
from ppcls_ise.clustering.tracklets import one_label_per_tracklet

DEFAULT_EPS = tuple(round(0.05 * step, 2) for step in range(4, 17))  # 0.2, 0.25 ... 0.8
LEAST_STABILITY = 0.85
MOST_OUTLIERS = 0.95
LARGEST_SHARE = 0.5
_OUTLIER_MARGIN = 0.03
_MANY_OUTLIERS = 0.5


@dataclass(frozen=True)
class EpsPoint:
    """The clusters at one eps.

    Attributes:
        eps: largest distance between neighbors.
        num_clusters: clusters.
        outlier_share: images without a cluster, in [0, 1].
        largest_share: images in the largest cluster, in [0, 1].
        largest: the same as a number of images.
        median_size: median images per cluster, 0.0 without clusters.
        stability: adjusted Rand index with the clusters at the next smaller eps, over the images
            (or tracklets) that have a cluster at both; NaN at the smallest eps and where there is
            none.
    """

    eps: float
    num_clusters: int
    outlier_share: float
    largest_share: float
    largest: int
    median_size: float
    stability: float

    @property
    def usable(self) -> bool:
        """Two clusters or more, at most 95 % outliers, no cluster of more than half of all."""
        return (
            self.num_clusters >= 2
            and self.outlier_share <= MOST_OUTLIERS
            and self.largest_share <= LARGEST_SHARE
        )


@dataclass(frozen=True)
class EpsRange:
    """Clusters over a range of eps.

    Attributes:
        points: by ascending eps.
        plateau: smallest and largest eps of the stable range, or None.
        recommended: eps to take, or None if there is no stable range.
        reason: why, in a sentence.
    """

    points: tuple[EpsPoint, ...]
    plateau: tuple[float, float] | None
    recommended: float | None
    reason: str


def graph_bound(eps: float) -> float:
    """``max_distance`` of a graph that is to hold all distances up to ``eps``, as DBSCAN compares
    them; at most 1."""
    return min(float(np.nextafter(np.float32(eps), np.float32(1))), 1.0)


def eps_range(
    graph: sparse.csr_matrix,
    eps_values: Sequence[float] = DEFAULT_EPS,
    min_samples: int = 4,
    *,
    tracklets: np.ndarray | None = None,
    free: np.ndarray | None = None,
    must_link: bool = True,
) -> EpsRange:
    """Cluster one graph at every eps and recommend one of them.

    As eps grows, clusters gather images that were outliers and pieces of one identity join, which
    leaves those together that were together; past some eps different identities merge, often into
    one giant cluster, and stability collapses. The recommendation stays just below that:

    1. leave out every eps with fewer than two clusters, more than 95 % outliers, or more than half
       of the images in one cluster;
    2. from the top down, find the first eps whose stability is at least 0.85, and the run of
       neighbors below it that is as stable;
    3. in that run, take the middle one of the eps whose outlier share is within 3 percentage
       points of the smallest of the run (the smaller of two).

    Where tracklets are known, stability is that of tracklets, each with the label that most of its
    labeled images have: that two frames which follow one another stay together says nothing. A
    tracklet without a labeled image counts as outliers here, though a training gives it a cluster
    of its own: the links between tracklets are what eps decides.

    Steps of about 0.05 are meant: stability compares neighbors, so very small steps hide a merge.
    One DBSCAN per eps, linear in the stored entries of the graph.

    Args:
        graph: [N, N] distances as :func:`ppcls_ise.clustering.jaccard_graph` makes them, with
            ``max_distance`` above the largest eps.
        eps_values: at least one, in any order.
        min_samples: see :func:`ppcls_ise.clustering.dbscan`.
        tracklets: [N] numbers 0 .. T-1 as of :func:`ppcls_ise.clustering.tracklets.tracklet_array`,
            or None.
        free: those that seem to mix people: they have no say in the stability.
        must_link: with tracklets, every tracklet gets one label, but for the free ones.

    Raises:
        ValueError: no eps, or one that DBSCAN refuses.
    """
    if not len(eps_values):
        raise ValueError("eps_values is empty: name at least one eps")
    points = []
    judged = _judged(graph.shape[0], tracklets, free)
    before: np.ndarray | None = None
    for eps in sorted(set(map(float, eps_values))):
        labels = dbscan(graph, eps, min_samples)
        voted = labels if tracklets is None else one_label_per_tracklet(labels, tracklets, free)
        used = voted if must_link else labels
        points.append(_describe(eps, used, voted[judged], before))
        before = voted[judged]
    return recommend(points)


def recommend(points: Sequence[EpsPoint]) -> EpsRange:
    """Apply the rule of :func:`eps_range` to points by ascending eps."""
    run = _last_stable_run(points)
    if not run:
        return EpsRange(tuple(points), None, None, _why_not(points))
    fewest = min(point.outlier_share for point in run)
    full = [point for point in run if point.outlier_share <= fewest + _OUTLIER_MARGIN]
    chosen = full[(len(full) - 1) // 2]
    reason = (
        f"from {run[0].eps:g} to {run[-1].eps:g} images that share a cluster go on sharing it "
        f"(stability {LEAST_STABILITY:g} or more at every step), beyond it "
        f"{'nothing was tried' if run[-1] is points[-1] else 'clusters merge'}, and "
        f"{chosen.eps:g} leaves about the fewest outliers there: {chosen.num_clusters} clusters, "
        f"{100 * chosen.outlier_share:.1f} % outliers"
    )
    if chosen.outlier_share > _MANY_OUTLIERS:
        reason += (
            ". Most images have no cluster yet: look again with weights that have seen more "
            "training"
        )
    return EpsRange(tuple(points), (run[0].eps, run[-1].eps), chosen.eps, reason)


def _judged(count: int, tracklets: np.ndarray | None, free: np.ndarray | None) -> np.ndarray:
    """The images that stability is judged by: all, or one of every tracklet that is not free."""
    if tracklets is None:
        return np.arange(count)
    numbers, first = np.unique(tracklets, return_index=True)
    return first if free is None else first[~np.isin(numbers, free)]


def _describe(
    eps: float, labels: np.ndarray, judged: np.ndarray, before: np.ndarray | None
) -> EpsPoint:
    count = max(len(labels), 1)
    sizes = np.bincount(labels[labels != OUTLIER])
    largest = int(sizes.max(initial=0))
    stability = math.nan
    if before is not None:
        both = (judged != OUTLIER) & (before != OUTLIER)
        if both.any():
            stability = float(adjusted_rand_score(before[both], judged[both]))
    return EpsPoint(
        eps=eps,
        num_clusters=len(sizes),
        outlier_share=np.count_nonzero(labels == OUTLIER) / count,
        largest_share=largest / count,
        largest=largest,
        median_size=float(np.median(sizes)) if len(sizes) else 0.0,
        stability=stability,
    )


def _last_stable_run(points: Sequence[EpsPoint]) -> list[EpsPoint]:
    """The run of stable neighbors that ends at the largest eps; at least two, or nothing."""
    run: list[EpsPoint] = []
    for left, right in reversed(list(pairwise(points))):
        if left.usable and right.usable and right.stability >= LEAST_STABILITY:
            run = [left, *(run or [right])]
        elif run:
            break
    return run


def _why_not(points: Sequence[EpsPoint]) -> str:
    low, high = points[0].eps, points[-1].eps
    if not any(point.num_clusters for point in points):
        return (
            f"there is no cluster at any eps from {low:g} to {high:g}: too few images look alike. "
            "Use other weights or more images, or lower Clustering.min_samples"
        )
    if not any(point.usable for point in points):
        return (
            f"at every eps from {low:g} to {high:g} there are fewer than two clusters, more than "
            f"{100 * MOST_OUTLIERS:.0f} % outliers, or a cluster of more than half of the images: "
            "these features do not tell the images apart"
        )
    return (
        f"from eps {low:g} to {high:g} the clusters change at every step (stability below "
        f"{LEAST_STABILITY:g}): use weights that have seen more training"
    )
