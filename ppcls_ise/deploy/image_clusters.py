# SPDX-License-Identifier: Apache-2.0
"""Clusters of image files, and the file that keeps them for corrections."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ppcls_ise.clustering import jaccard_graph
from ppcls_ise.clustering.dbscan import OUTLIER, dbscan
from ppcls_ise.clustering.eps_range import DEFAULT_EPS, EpsRange, eps_range, graph_bound
from ppcls_ise.clustering.tracklets import (
    mixed_tracklets,
    one_label_per_tracklet,
    tracklet_array,
)
from ppcls_ise.clustering.whitening import whitened_by_tracklet
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.errors import DataError, shown
from ppcls_ise.utils.array_files import read_tree, write_tree
from ppcls_ise.utils.files import reading
from ppcls_ise.utils.progress import progress_bar

KIND = "ppcls_ise people 1"
FIRST = 1  # the lowest number of a cluster: identity 0 of Market-1501 is the background


@dataclass(frozen=True)
class ImageClusters:
    """Clusters of N images.

    Attributes:
        labels: [N] int64, -1 = outlier, else numbers from 1.
        graph: [N, N] Jaccard distances up to ``eps`` between images of one cluster.
        eps: that they were found with.
        reason: why this eps.
        mixed: [N] bool, images of tracklets that seem to show several people.
    """

    labels: np.ndarray
    graph: sparse.csr_matrix
    eps: float
    reason: str
    mixed: np.ndarray

    def write(self, path: str | Path, bound_to: dict[str, Any]) -> None:
        """Write it, with what it was made of.

        Raises:
            OSError: it cannot be written there.
        """
        tree = {
            "labels": self.labels,
            "indptr": self.graph.indptr.astype(np.int64),
            "indices": self.graph.indices.astype(np.int32),
            "distances": self.graph.data.astype(np.float32),
            "eps": float(self.eps),
            "reason": self.reason,
            "mixed": self.mixed,
            "bound_to": bound_to,
        }
        write_tree(path, tree, kind=KIND)

    @classmethod
    def read(cls, path: str | Path) -> tuple["ImageClusters", dict[str, Any]]:
        """What `write` wrote: the clusters and what they are bound to.

        Raises:
            DataError: it is damaged, or something else.
        """
        tree = read_tree(path, kind=KIND, error=DataError)
        with reading(path, DataError, "holds no clusters that can be used"):
            parts = tree["distances"], tree["indices"], tree["indptr"]
            count = len(tree["labels"])
            graph = sparse.csr_matrix(parts, shape=(count, count))
            graph.check_format(full_check=True)
            made = cls(tree["labels"], graph, tree["eps"], tree["reason"], tree["mixed"])
            return made, tree["bound_to"]


def cluster_images(
    features: np.ndarray,
    options: ClusteringOptions,
    *,
    eps: float | None,
    camera_ids: np.ndarray | None,
    tracklet_ids: np.ndarray | None,
) -> ImageClusters:
    """Cluster features as an epoch of a training does, with a given eps or a chosen one.

    Args:
        features: [N, D] unit rows; those of a tracklet in the order of time.
        options: `ClusteringOptions.resolved`.
        eps: None: `eps_range` recommends one of 0.2, 0.25 … 0.8.
        camera_ids: [N] or None, for ``options.camera_aware``.
        tracklet_ids: [N], -1 = in none, or None, for ``options.tracklet_aware``.

    Cost: see `jaccard_graph`; the graph for a choice holds the pairs up to distance 0.8.

    Raises:
        DataError: no eps stands out.
    """
    tracklets = free = None
    if options.tracklet_aware and tracklet_ids is not None:
        tracklets = tracklet_array(tracklet_ids, len(features))
        free = mixed_tracklets(features, tracklets)
    largest = max(DEFAULT_EPS) if eps is None else eps
    with progress_bar("distances", "block") as progress:
        graph = jaccard_graph(
            whitened_by_tracklet(features, tracklets) if options.whiten else features,
            max_distance=graph_bound(largest),
            progress=lambda stage, done, total: progress(done, total),
            **options.graph_options(camera_ids, tracklet_ids),
        )
    reason = "given"
    if eps is None:
        found = eps_range(
            graph,
            DEFAULT_EPS,
            options.min_samples,
            tracklets=tracklets,
            free=free,
            must_link=options.must_link,
        )
        eps, reason = _chosen(found), found.reason
    labels = dbscan(graph, eps, options.min_samples)
    mixed: np.ndarray = np.zeros(len(labels), bool)
    if tracklets is not None and free is not None:
        mixed = np.isin(tracklets, free)
        if options.must_link:
            labels = one_label_per_tracklet(labels, tracklets, free, alone=options.min_samples)
    graph = _within(graph, labels, eps)
    labels = np.where(labels == OUTLIER, OUTLIER, labels + FIRST)
    return ImageClusters(labels, graph, eps, reason, mixed)


def _chosen(found: EpsRange) -> float:
    if found.recommended is None:
        tried = ", ".join(
            f"{point.eps:g}: {point.num_clusters} ({100 * point.outlier_share:.0f} %)"
            for point in found.points
        )
        raise DataError(
            f"no eps stands out: {found.reason}. Choose one (--eps); clusters and outliers were "
            f"{tried}. The features are kept: the network is not computed again"
        )
    return found.recommended


def _within(graph: sparse.csr_matrix, labels: np.ndarray, eps: float) -> sparse.csr_matrix:
    """The entries up to ``eps`` between members of a cluster."""
    count = graph.shape[0]
    rows = np.repeat(np.arange(count, dtype=np.int32), np.diff(graph.indptr))
    kept = graph.data <= np.float32(eps)
    kept &= (labels[rows] == labels[graph.indices]) & (labels[rows] != OUTLIER)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[kept], minlength=count))])
    return sparse.csr_matrix((graph.data[kept], graph.indices[kept], indptr), shape=(count, count))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, how what clusters are bound to differs: settings by key, and the files."""
    words = [
        f"{key} was {before['settings'].get(key)}, is {value}"
        for key, value in now["settings"].items()
        if before["settings"].get(key) != value
    ]
    old, new = (
        {path: stamp for path, *stamp in zip(b["paths"], b["sizes"], b["times"], strict=True)}
        for b in (before, now)
    )
    for kind, paths in (
        ("new", new.keys() - old.keys()),
        ("gone", old.keys() - new.keys()),
        ("changed", {path for path in old.keys() & new.keys() if old[path] != new[path]}),
    ):
        if paths:
            words.append(f"{len(paths)} images are {kind}, for instance {shown(min(paths))}")
    if not words and before["paths"] != now["paths"]:
        words.append("the images stand in another order")
    return words
