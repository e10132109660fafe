# SPDX-License-Identifier: Apache-2.0
"""The Jaccard graph of a clustering once more, of whole clusters of it where that is too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.doubts import split_parts
from ppcls_ise.clustering.eps_range import EpsRange, eps_range, graph_bound
from ppcls_ise.clustering.jaccard import jaccard_graph
from ppcls_ise.clustering.record import ClusteringRecord, rows_by_cluster
from ppcls_ise.clustering.tracklets import mixed_tracklets, tracklet_array
from ppcls_ise.clustering.whitening import whitened_by_tracklet


@dataclass(frozen=True)
class GraphSettings:
    """How the clusters were made.

    Attributes:
        eps, min_samples: of DBSCAN.
        lengths: list lengths, as `jaccard_graph` takes them.
        camera_aware, tracklet_aware: whether cameras and tracklets make lists of their own.
        whiten: whether the features were whitened first.
        must_link: whether a tracklet has one label.
    """

    eps: float
    min_samples: int = 4
    lengths: Mapping[str, int] = field(default_factory=dict)
    camera_aware: bool = False
    tracklet_aware: bool = False
    whiten: bool = False
    must_link: bool = True


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


def tracklets_of(
    record: ClusteringRecord, positions: np.ndarray, settings: GraphSettings
) -> np.ndarray | None:
    """Tracklets of the images at ``positions`` in ``record.rows`` as numbers 0 .. T-1, where the
    clustering used them."""
    if not settings.tracklet_aware or record.tracklets is None:
        return None
    return tracklet_array(record.tracklets[record.rows[positions]], len(positions))


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
    tracklets = tracklets_of(record, positions, settings)
    if tracklets is not None:
        options["tracklet_ids"] = tracklets
    by_group = bool(options)
    options |= {k: n for k, n in settings.lengths.items() if ("_" in k) == by_group}
    return jaccard_graph(
        whitened_by_tracklet(features, tracklets) if settings.whiten else features,
        max_distance=graph_bound(max_distance),
        **options,
    )


def eps_range_of(
    record: ClusteringRecord,
    positions: np.ndarray,
    graph: sparse.csr_matrix,
    settings: GraphSettings,
    values: Sequence[float],
) -> EpsRange:
    """`eps_range` of the images at ``positions``, from `graph_of`."""
    tracklets = tracklets_of(record, positions, settings)
    free = None
    if tracklets is not None:
        free = mixed_tracklets(record.unit_features(positions), tracklets)
    return eps_range(
        graph,
        values,
        settings.min_samples,
        tracklets=tracklets,
        free=free,
        must_link=settings.must_link,
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
    for cluster, members in enumerate(rows_by_cluster(labels, record.num_clusters)):
        if len(members) < sizes[cluster]:
            continue
        parts[cluster] = 1
        split = split_parts(graph[members][:, members], settings.eps, settings.min_samples)
        if split is not None:
            names = [name for name in np.unique(split[0]) if name != OUTLIER]
            found[cluster] = [positions[members[split[0] == name]] for name in names], split[1]
            parts[cluster] = len(names)
    return parts, found
