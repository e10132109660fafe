# SPDX-License-Identifier: Apache-2.0
"""Which clusters look wrong: wide, of several parts, of odd make-up, or two of one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.dbscan import OUTLIER, dbscan
from ppcls_ise.clustering.parallel import ordered_map, spans
from ppcls_ise.clustering.record import ClusteringRecord

LOW_SILHOUETTE = 0.1
_WIDE = 3.0  # robust standard deviations above the median
_MAD = 1.4826  # of a normal distribution: standard deviation / median absolute deviation
_SMALLER_EPS = (0.9, 0.8, 0.7, 0.6)  # shares of eps, from the nearest down
_LEAST_SHARE = 0.1  # of a cluster, that counts as a part of it
_LEANING = 0.25  # of the images of two clusters
_NEAREST = 5  # clusters that a cluster is compared with
_BLOCK_ROWS = 512
FLAGS = ("low silhouette", "wide", "several parts", "one camera", "one tracklet", "shared tracklet")


@dataclass(frozen=True)
class ClusterTable:
    """What is known of each of C clusters.

    Attributes:
        sizes: images, [C] int64.
        silhouettes: mean simplified silhouette, [C] float64; NaN with one cluster.
        widths: mean distance to the centroid, [C] float64.
        cameras, tracklets, identities: how many different ones, [C] int64, or None where unknown.
        parts: into how many parts it falls at a smaller eps, [C] int64; 1 where it stays whole, 0
            where that was not looked at.
        flags: for each cluster those of `FLAGS` that hold for it.
        doubts: [C] float64, the larger the more doubtful: (1 - silhouette) / 2 plus 0.5 per flag.
    """

    sizes: np.ndarray
    silhouettes: np.ndarray
    widths: np.ndarray
    cameras: np.ndarray | None
    tracklets: np.ndarray | None
    identities: np.ndarray | None
    parts: np.ndarray
    flags: list[list[str]]
    doubts: np.ndarray


def cluster_table(record: ClusteringRecord, parts: np.ndarray | None = None) -> ClusterTable:
    """Describe every cluster; O(N) up to sorts.

    A cluster is *wide* if its width is more than three robust standard deviations above the median
    of all; of *one camera* (*one tracklet*) if that is so although most clusters have several; of a
    *shared tracklet* if a tracklet has images in it and in another cluster.

    Args:
        parts: see `ClusterTable`; None: nothing was looked at.
    """
    labels, clusters = record.labels, record.num_clusters
    inside = np.flatnonzero(labels != OUTLIER)
    sizes = record.sizes
    known = np.flatnonzero(np.isfinite(record.silhouettes))
    silhouettes = _means(labels[known], record.silhouettes[known], clusters)
    widths = _means(labels[inside], record.distances[inside], clusters)
    cameras = _different(labels, record.camids, clusters)
    tracklets = _different(labels, record.tracklets, clusters)
    parts = np.zeros(clusters, np.int64) if parts is None else parts
    holds = {
        "low silhouette": silhouettes < LOW_SILHOUETTE,
        "wide": _far_above(widths),
        "several parts": parts > 1,
        "one camera": _only_one(cameras, clusters),
        "one tracklet": _only_one(tracklets, clusters),
        "shared tracklet": _sharing(labels, record.tracklets, clusters),
    }
    flags = [[name for name in FLAGS if holds[name][cluster]] for cluster in range(clusters)]
    doubts = (1.0 - np.nan_to_num(silhouettes)) / 2.0 + 0.5 * np.array(list(map(len, flags)))
    return ClusterTable(
        sizes,
        silhouettes,
        widths,
        cameras,
        tracklets,
        _different(labels, record.pids, clusters),
        parts,
        flags,
        doubts,
    )


def split_parts(
    graph: sparse.csr_matrix, eps: float, min_samples: int = 4
) -> tuple[np.ndarray, float] | None:
    """The parts into which a cluster falls at a smaller eps, for "this may be two people".

    Tries 0.9, 0.8, 0.7 and 0.6 of ``eps`` in turn and takes the first at which DBSCAN finds two
    parts or more that each hold a tenth of the images (and ``min_samples``).

    Args:
        graph: [n, n] Jaccard distances of the members of one cluster, as `jaccard_graph` makes
            them: rows and columns of the graph of all images.
        eps: at which they are one cluster.
        min_samples: see `ppcls_ise.clustering.dbscan`.

    Returns:
        Labels [n] int64 (-1 = in no part) and the smaller eps; None if it stays whole.
    """
    count = graph.shape[0]
    least = max(min_samples, int(np.ceil(_LEAST_SHARE * count)))
    if count < 2 * least:
        return None
    for share in _SMALLER_EPS:
        labels = dbscan(graph, share * eps, min_samples)
        sizes = np.bincount(labels[labels != OUTLIER])
        if np.count_nonzero(sizes >= least) > 1:
            return labels, share * eps
    return None


@dataclass(frozen=True)
class ClusterPair:
    """Two clusters that may be one person.

    Attributes:
        clusters: the two, ascending.
        score: Davies-Bouldin similarity (w_a + w_b) / d_ab, widths over the distance of the
            centroids: the higher, the less they are apart.
        distance: of the centroids, in [0, 2].
        mutual: whether each centroid is the nearest of the other.
        leaning: share of the images of both whose nearest other centroid is that of the partner.
        shared_tracklets: tracklets with images in both.
    """

    clusters: tuple[int, int]
    score: float
    distance: float
    mutual: bool
    leaning: float
    shared_tracklets: int


def likely_pairs(record: ClusteringRecord, widths: np.ndarray, count: int) -> list[ClusterPair]:
    """Up to ``count`` pairs of clusters that may be one person, the likeliest first: those that
    share tracklets, then by score. Candidates share a tracklet, are each other's nearest, or are
    nearest for a quarter of their images. O(C^2 D) in blocks."""
    centroids, clusters = record.centroids, record.num_clusters
    if clusters < 2:
        return []
    near = _nearest_centroids(centroids)
    own = np.arange(clusters)[:, None].repeat(near.shape[1], 1)
    pairs = np.unique(np.sort(np.stack([own.ravel(), near.ravel()], 1), axis=1), axis=0)
    shared = _shared_tracklets(record)
    if shared:
        pairs = np.unique(np.concatenate([pairs, np.array(sorted(shared))]), axis=0)
    a, b = pairs.T
    cosine = np.einsum("ij,ij->i", centroids[a], centroids[b])
    distance = np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0))
    score = (widths[a] + widths[b]) / np.maximum(distance, 1e-6)
    common = np.array([shared.get((int(i), int(j)), 0) for i, j in pairs])
    mutual = (near[a, 0] == b) & (near[b, 0] == a)
    looked = (record.labels != OUTLIER) & (record.others != OUTLIER)
    sizes = np.bincount(record.labels[looked], minlength=clusters)
    lean = _leaning(record)
    keys = [(int(i), int(j)) for i, j in pairs]
    leaning = np.array([lean.get(key, 0) + lean.get(key[::-1], 0) for key in keys])
    leaning = leaning / np.maximum(sizes[a] + sizes[b], 1)
    candidates = np.flatnonzero((common > 0) | mutual | (leaning >= _LEANING))
    order = candidates[np.lexsort((-score[candidates], -common[candidates]))][:count]
    return [
        ClusterPair(
            (int(a[i]), int(b[i])),
            float(score[i]),
            float(distance[i]),
            bool(mutual[i]),
            float(leaning[i]),
            int(common[i]),
        )
        for i in order
    ]


def nearest_across(
    record: ClusteringRecord, first: int, second: int, positions: list[np.ndarray]
) -> tuple[int, int, bool]:
    """The two images of two clusters that are nearest to each other, as positions in
    ``record.rows``, and whether they are mutual nearest neighbors among the kept images outside of
    their own clusters. O(M D).

    Args:
        positions: for each cluster the positions of its kept images; both are to have some.
    """
    left, right = positions[first], positions[second]
    a, b = record.unit_features(left), record.unit_features(right)
    cosines = a @ b.T
    i, j = np.unravel_index(int(cosines.argmax()), cosines.shape)
    best = float(cosines[i, j])
    labels = record.labels[record.rows]
    mutual = True
    for start, stop in spans(len(labels), _BLOCK_ROWS * 16):
        block = record.features[start:stop].astype(np.float32) @ np.stack([a[i], b[j]]).T
        outside = np.stack([labels[start:stop] != first, labels[start:stop] != second], axis=1)
        mutual &= not (outside & (block > best + 1e-3)).any()  # float16 rows
    return int(left[i]), int(right[j]), bool(mutual)


def _means(labels: np.ndarray, values: np.ndarray, clusters: int) -> np.ndarray:
    sums = np.bincount(labels, weights=values, minlength=clusters)
    counts = np.bincount(labels, minlength=clusters)
    return np.divide(sums, counts, out=np.full(clusters, np.nan), where=counts > 0)


def _different(labels: np.ndarray, ids: np.ndarray | None, clusters: int) -> np.ndarray | None:
    """Number of different ids >= 0 in each cluster."""
    if ids is None:
        return None
    known = (labels != OUTLIER) & (ids >= 0)
    pairs = np.unique(np.stack([labels[known], ids[known]], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=clusters)


def _far_above(widths: np.ndarray) -> np.ndarray:
    if not len(widths):
        return np.zeros(0, bool)
    middle = np.median(widths)
    deviation = _MAD * np.median(np.abs(widths - middle))
    return (widths > middle + _WIDE * deviation) & (deviation > 0)


def _only_one(counts: np.ndarray | None, clusters: int) -> np.ndarray:
    if counts is None or np.median(counts) <= 1:
        return np.zeros(clusters, bool)
    return counts == 1


def _sharing(labels: np.ndarray, tracklets: np.ndarray | None, clusters: int) -> np.ndarray:
    found = np.zeros(clusters, bool)
    for first, second in _pairs_of(labels, tracklets):
        found[[first, second]] = True
    return found


def _shared_tracklets(record: ClusteringRecord) -> dict[tuple[int, int], int]:
    """(a, b), a < b -> tracklets with images in both."""
    counts: dict[tuple[int, int], int] = {}
    for pair in _pairs_of(record.labels, record.tracklets):
        counts[pair] = counts.get(pair, 0) + 1
    return counts


def _pairs_of(labels: np.ndarray, tracklets: np.ndarray | None) -> list[tuple[int, int]]:
    """For every tracklet the neighboring pairs of the clusters that it has images in."""
    if tracklets is None:
        return []
    known = (labels != OUTLIER) & (tracklets >= 0)
    rows = np.unique(np.stack([tracklets[known], labels[known]], axis=1), axis=0)
    same = np.flatnonzero(rows[1:, 0] == rows[:-1, 0]) if len(rows) else np.empty(0, int)
    return [(int(rows[i, 1]), int(rows[i + 1, 1])) for i in same]


def _leaning(record: ClusteringRecord) -> dict[tuple[int, int], int]:
    """(own, other) -> images of own whose nearest other centroid is other's."""
    rows = np.flatnonzero((record.labels != OUTLIER) & (record.others != OUTLIER))
    keys = record.labels[rows] * record.num_clusters + record.others[rows]
    values, counts = np.unique(keys, return_counts=True)
    return {
        divmod(int(key), record.num_clusters): int(n) for key, n in zip(values, counts, strict=True)
    }


def _nearest_centroids(centroids: np.ndarray) -> np.ndarray:
    """The nearest other clusters of each, [C, <= 5], nearest first."""
    count = len(centroids)
    most = min(_NEAREST, count - 1)

    def nearest(span: tuple[int, int]) -> np.ndarray:
        cosines = centroids[slice(*span)] @ centroids.T
        cosines[np.arange(len(cosines)), np.arange(*span)] = -np.inf
        some = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(cosines, some, 1), axis=1, kind="stable")
        return np.take_along_axis(some, order, 1)

    return np.concatenate(list(ordered_map(nearest, spans(count, _BLOCK_ROWS))))
