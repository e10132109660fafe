# SPDX-License-Identifier: Apache-2.0
"""The Jaccard graph of a clustering once more, of whole clusters of it where that is too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.doubts import split_parts
from ppcls_ise.clustering.jaccard import jaccard_graph
from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.clustering.whitening import whitened


@dataclass(frozen=True)
class GraphSettings:
    """How the clusters were made.

    Attributes:
        eps, min_samples: of DBSCAN.
        lengths: list lengths, as `jaccard_graph` takes them.
        camera_aware, tracklet_aware: whether cameras and tracklets make lists of their own.
        whiten: whether the features were whitened first.
    """

    eps: float
    min_samples: int = 4
    lengths: Mapping[str, int] = field(default_factory=dict)
    camera_aware: bool = False
    tracklet_aware: bool = False
    whiten: bool = False


def sample_of(record: ClusteringRecord, most: int, order: np.ndarray) -> np.ndarray:
    """Positions in ``record.rows`` of whole clusters, taken by ``order`` until ``most`` images, and
    of as large a share of the outliers; all of them where there are no more. Ascending."""
    labels = record.labels[record.rows]
    if len(labels) <= most:
        return np.arange(len(labels))
    sizes = np.bincount(labels[labels != OUTLIER], minlength=record.num_clusters)
    outliers = np.flatnonzero(labels == OUTLIER)
    room = most * (1.0 - len(outliers) / len(labels))
    taken = order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), room, side="right")))]
    chosen = np.zeros(record.num_clusters, bool)
    chosen[taken] = True
    inside = np.flatnonzero((labels != OUTLIER) & chosen[labels])[:most]
    share = len(inside) / max(np.count_nonzero(labels != OUTLIER), 1)
    some = np.random.default_rng(0).permutation(outliers)[: int(share * len(outliers))]
    return np.sort(np.concatenate([inside, some]))


def graph_of(
    record: ClusteringRecord,
    positions: np.ndarray,
    settings: GraphSettings,
    max_distance: float,
) -> sparse.csr_matrix:
    """Jaccard distances up to ``max_distance`` among the images at ``positions`` in
    ``record.rows``; see `jaccard_graph` for the cost."""
    features = record.unit_features(positions)
    rows = record.rows[positions]
    options: dict[str, Any] = {}
    if settings.camera_aware and record.camids is not None:
        options["camera_ids"] = record.camids[rows]
    if settings.tracklet_aware and record.tracklets is not None:
        options["tracklet_ids"] = record.tracklets[rows]
    by_group = bool(options)
    options |= {k: n for k, n in settings.lengths.items() if ("_" in k) == by_group}
    limit = min(float(np.nextafter(np.float32(max_distance), np.float32(1))), 1.0)
    return jaccard_graph(
        whitened(features) if settings.whiten else features,
        max_distance=limit,
        **options,
    )


def splits_of(
    record: ClusteringRecord,
    positions: np.ndarray,
    graph: sparse.csr_matrix,
    settings: GraphSettings,
) -> tuple[np.ndarray, dict[int, tuple[list[np.ndarray], float]]]:
    """Which clusters fall apart at a smaller eps (`split_parts`), of those at ``positions``.

    Returns:
        [C] int64 number of parts, 0 where the cluster is not in the sample as a whole; and for each
        cluster of several parts these, as positions in ``record.rows``, and the smaller eps.
    """
    labels = record.labels[record.rows[positions]]
    parts = np.zeros(record.num_clusters, np.int64)
    found: dict[int, tuple[list[np.ndarray], float]] = {}
    sizes = record.sizes
    order = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[order], np.arange(record.num_clusters + 1))
    for cluster in range(record.num_clusters):
        members = order[edges[cluster] : edges[cluster + 1]]
        if len(members) < sizes[cluster]:
            continue
        parts[cluster] = 1
        split = split_parts(graph[members][:, members], settings.eps, settings.min_samples)
        if split is not None:
            names = [name for name in np.unique(split[0]) if name != OUTLIER]
            found[cluster] = [positions[members[split[0] == name]] for name in names], split[1]
            parts[cluster] = len(names)
    return parts, found
