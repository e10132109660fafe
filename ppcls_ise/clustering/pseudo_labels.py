# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels from features: neighbors, Jaccard graph, DBSCAN, initial cluster memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ppcls_ise.clustering.centroids import cluster_centroids
from ppcls_ise.clustering.dbscan import OUTLIER, dbscan
from ppcls_ise.clustering.jaccard import jaccard_graph
from ppcls_ise.clustering.membership import Lists
from ppcls_ise.clustering.neighbors import Backend, k_nearest, search_recall
from ppcls_ise.clustering.parallel import Progress
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, from_process_0
from ppcls_ise.clustering.row_set import as_features
from ppcls_ise.clustering.tracklets import (
    mixed_tracklets,
    one_label_per_tracklet,
    tracklet_array,
)
from ppcls_ise.clustering.whitening import whitened_by_tracklet


@dataclass(frozen=True)
class PseudoLabels:
    """Result of one clustering.

    Attributes:
        labels: [N] int64, -1 = outlier.
        centroids: [C, D] float32 unit rows, row c = N(mean of the unit features of cluster c).
        num_clusters: C.
        num_outliers: images without a cluster.
        largest: images in the largest cluster, 0 without clusters.
        median_size: median images per cluster, 0.0 without clusters.
        seconds: wall time per stage: "neighbors", "jaccard", "dbscan".
        recall: share of the true neighbors that an approximate search found, measured on a random
            sample; None for an exact search.
        mixed_tracklets: ids of the tracklets that seem to show more than one person, ascending;
            empty where no tracklets are known.
    """

    labels: np.ndarray
    centroids: np.ndarray
    num_clusters: int
    num_outliers: int
    largest: int
    median_size: float
    seconds: Mapping[str, float] = field(default_factory=dict)
    recall: float | None = None
    mixed_tracklets: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def outlier_share(self) -> float:
        """Images without a cluster, in [0, 1]."""
        return self.num_outliers / max(len(self.labels), 1)

    @classmethod
    def from_labels(
        cls,
        features: np.ndarray,
        labels: np.ndarray,
        *,
        seconds: Mapping[str, float] | None = None,
        recall: float | None = None,
        mixed_tracklets: np.ndarray | None = None,
    ) -> PseudoLabels:
        """Describe given labels [N] (-1 = outlier, else 0..C-1) of features [N, D]."""
        labels = np.asarray(labels, dtype=np.int64)
        centroids = cluster_centroids(features, labels)
        sizes = np.bincount(labels[labels != OUTLIER], minlength=len(centroids))
        return cls(
            labels=labels,
            centroids=centroids,
            num_clusters=len(centroids),
            num_outliers=int(np.count_nonzero(labels == OUTLIER)),
            largest=int(sizes.max(initial=0)),
            median_size=float(np.median(sizes)) if len(sizes) else 0.0,
            seconds=dict(seconds or {}),
            recall=recall,
            mixed_tracklets=np.array([] if mixed_tracklets is None else mixed_tracklets, np.int64),
        )


def generate_pseudo_labels(
    features: np.ndarray,
    eps: float,
    min_samples: int = 4,
    k1: int = 30,
    k2: int = 6,
    *,
    camera_ids: np.ndarray | None = None,
    tracklet_ids: np.ndarray | None = None,
    must_link: bool = True,
    whiten: bool | None = None,
    k1_intra: int | None = None,
    k1_inter: int | None = None,
    k2_intra: int | None = None,
    k2_inter: int | None = None,
    neighbors: np.ndarray | Lists | None = None,
    backend: str | Backend = "auto",
    approximate: bool = False,
    processes: Processes = ONE_PROCESS,
    progress: Progress | None = None,
) -> PseudoLabels:
    """Cluster images by DBSCAN on their k-reciprocal Jaccard distances.

    Cost: see :func:`ppcls_ise.clustering.k_nearest` for the search, which dominates; the rest is
    linear in N. No randomness: equal features give equal labels.

    Args:
        features: [N, D] unit rows; N may be 0.
        eps: largest Jaccard distance between neighbors.
        min_samples: neighbors of a core image, itself included.
        k1: see :func:`ppcls_ise.clustering.jaccard_graph`, as the arguments below.
        k2: see there.
        camera_ids: see there.
        tracklet_ids: see there; rows of a tracklet in the order of time.
        must_link: with ``tracklet_ids``, every tracklet gets one label, that of most of its labeled
            frames, but for those in ``mixed_tracklets`` of the result; one of at least
            ``min_samples`` frames, none of them labeled, is a cluster of its own.
        whiten: cluster the features of
            :func:`ppcls_ise.clustering.whitening.whitened_by_tracklet`; the centroids stay those
            of ``features``. Not with ``neighbors``. None: with ``tracklet_ids``.
        k1_intra: see there.
        k1_inter: see there.
        k2_intra: see there.
        k2_inter: see there.
        neighbors: see there.
        backend: see :func:`ppcls_ise.clustering.k_nearest`.
        approximate: see there; not with ``camera_ids`` or ``tracklet_ids``. The result then says
            its recall.
        processes: who shares the work; all of them call this alike and receive the same result,
            the bytes of one process.
        progress: called as progress(stage, done, total).

    Raises:
        ValueError: eps not in [0, 1), lengths below 1, bad features (see the functions above).
    """
    if not 0 <= np.float32(eps) < 1:
        raise ValueError(f"Clustering.eps must be a float32 Jaccard distance in [0, 1), got {eps}")
    if whiten is None:
        whiten = tracklet_ids is not None and neighbors is None
    if whiten and neighbors is not None:
        raise ValueError("whiten cannot be combined with given neighbors, which are of other rows")
    matrix = as_features(features)
    seconds: dict[str, float] = {}
    recall, started = None, time.perf_counter()
    tracklets = None if tracklet_ids is None else tracklet_array(tracklet_ids, len(matrix))
    compared = matrix
    if whiten:
        compared = whitened_by_tracklet(matrix, tracklets, processes=processes)
    if approximate:
        if not (camera_ids is None and tracklet_ids is None and neighbors is None):
            raise ValueError(
                "Clustering.approximate cannot be combined with camera-aware or tracklet-aware "
                "neighbors (Clustering.camera_aware, Clustering.tracklet_aware) or with given "
                "ones: set it to False"
            )
        neighbors = k_nearest(
            compared, k1, approximate=True, processes=processes, progress=progress
        )
        recall = search_recall(compared, neighbors[0], processes=processes)
    searched = time.perf_counter() - started
    graph = jaccard_graph(
        compared,
        k1,
        k2,
        # The graph leaves its bound out, DBSCAN takes eps in.
        float(np.nextafter(np.float32(eps), np.float32(np.inf))),
        camera_ids=camera_ids,
        tracklet_ids=tracklet_ids,
        k1_intra=k1_intra,
        k1_inter=k1_inter,
        k2_intra=k2_intra,
        k2_inter=k2_inter,
        neighbors=neighbors,
        backend=backend,
        processes=processes,
        progress=progress,
        seconds=seconds,
    )
    seconds["neighbors"] += searched
    del compared
    started = time.perf_counter()
    labels = from_process_0(
        lambda: dbscan(graph, eps, min_samples), processes, otherwise=np.empty(0, np.int64)
    )
    mixed = None
    if tracklets is not None:
        free = mixed_tracklets(matrix, tracklets)
        mixed = np.unique(np.asarray(tracklet_ids)[np.isin(tracklets, free)])
        if must_link:
            labels = one_label_per_tracklet(labels, tracklets, free, alone=min_samples)
    seconds["dbscan"] = time.perf_counter() - started
    return PseudoLabels.from_labels(
        matrix, labels, seconds=seconds, recall=recall, mixed_tracklets=mixed
    )
