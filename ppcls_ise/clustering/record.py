# SPDX-License-Identifier: Apache-2.0
"""A clustering with what is needed to look at it afterwards: paths, distances, features; a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise.clustering.centroids import cluster_centroids
from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.parallel import ordered_map, spans
from ppcls_ise.clustering.row_set import unit_rows
from ppcls_ise.errors import DataError
from ppcls_ise.utils.array_files import read_tree, write_tree
from ppcls_ise.utils.tables import cell, write_csv

KIND = "ppcls_ise clustering 1"
MOST_FEATURES = 100_000  # images whose features are kept; of 2048 values: 0.4 GB
TABLE_HEADER = ("path", "cluster", "camera", "tracklet", "distance", "silhouette")
_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class ClusteringRecord:
    """Images, their clusters, and how well they fit.

    Attributes:
        paths: N image paths.
        labels: [N] int64, -1 = outlier.
        centroids: [C, D] float32 unit rows.
        distances: [N] float32, Euclidean distance of the unit feature to the own centroid, in
            [0, 2]; NaN for outliers.
        silhouettes: [N] float32, simplified silhouette (b - a) / max(a, b) with a = distance to the
            own centroid and b = distance to the nearest other one, in [-1, 1]; NaN for outliers
            and where there is one cluster only. (The exact silhouette averages the distances to
            all images and is quadratic in N.) NaN too for images that are not in ``rows``.
        others: [N] int64, the nearest cluster that is not the own one; -1 without any, and for
            images that are not in ``rows``.
        rows: [M] int64, ascending: the images whose features are kept, all or a random sample.
        features: [M, D] float16 unit rows.
        camids, tracklets, pids: [N] int64 or None where unknown; -1 = this image has none.
        epoch: in which it was made, 0 outside of a training.
    """

    paths: list[str]
    labels: np.ndarray
    centroids: np.ndarray
    distances: np.ndarray
    silhouettes: np.ndarray
    others: np.ndarray
    rows: np.ndarray
    features: np.ndarray
    camids: np.ndarray | None = None
    tracklets: np.ndarray | None = None
    pids: np.ndarray | None = None
    epoch: int = 0

    @property
    def num_clusters(self) -> int:
        return len(self.centroids)

    @property
    def sizes(self) -> np.ndarray:
        """Images per cluster, [C] int64."""
        return np.bincount(self.labels[self.labels != OUTLIER], minlength=self.num_clusters)

    @classmethod
    def describe(
        cls,
        paths: Sequence[str],
        features: np.ndarray,
        labels: np.ndarray,
        *,
        centroids: np.ndarray | None = None,
        camids: np.ndarray | None = None,
        tracklets: np.ndarray | None = None,
        pids: np.ndarray | None = None,
        epoch: int = 0,
        most_features: int = MOST_FEATURES,
    ) -> ClusteringRecord:
        """Measure a clustering of features [N, D] (unit rows, float32 or float16); ``centroids``
        are computed where they are not given.

        O(M C D) time for the distances of the kept images to all centroids, in blocks; memory
        O(C D) beside the features that are kept.

        Raises:
            ValueError: paths, labels and features are not of one length.
        """
        if not len(paths) == len(labels) == len(features):
            raise ValueError(
                f"paths, labels and features must be one per image, got {len(paths)}, "
                f"{len(labels)} and {len(features)}"
            )
        labels = np.asarray(labels, np.int64)
        if centroids is None:
            centroids = cluster_centroids(features, labels)
        rows: np.ndarray = np.arange(len(labels))
        if len(rows) > most_features:
            chosen = np.random.default_rng(0).choice(len(rows), most_features, replace=False)
            rows = np.sort(chosen)
        kept = np.empty((len(rows), features.shape[1]), np.float16)
        distances, silhouettes, others = _fit(features, labels, centroids, rows, kept)
        return cls(
            list(map(os.fspath, paths)),
            labels,
            centroids,
            distances,
            silhouettes,
            others,
            rows,
            kept,
            camids,
            tracklets,
            pids,
            epoch,
        )

    def unit_features(self, positions: np.ndarray) -> np.ndarray:
        """float32 unit rows of ``positions`` in ``rows``."""
        values = self.features[positions].astype(np.float32)
        return unit_rows(values, out=values)

    def write(self, path: str | Path) -> None:
        """Write it as one file; 2 M D bytes and some.

        Raises:
            OSError: it cannot be written there.
        """
        tree = {field: getattr(self, field) for field in self.__dataclass_fields__}
        names = "\0".join(self.paths).encode("utf-8", "surrogateescape")
        write_tree(path, tree | {"paths": np.frombuffer(names, np.uint8)}, kind=KIND)

    def write_table(self, path: str | Path) -> None:
        """Write a line per image as CSV: path, cluster (-1: none), camera, tracklet, distance to
        the centroid, simplified silhouette; a cell is empty where that is not known.

        Raises:
            OSError: it cannot be written there.
        """
        columns = (
            map(cell, self.paths),
            self.labels.tolist(),
            _numbers(self.camids, len(self.paths)),
            _numbers(self.tracklets, len(self.paths)),
            _decimals(self.distances),
            _decimals(self.silhouettes),
        )
        write_csv(path, TABLE_HEADER, zip(*columns, strict=True))

    @classmethod
    def read(cls, path: str | Path) -> ClusteringRecord:
        """Read what `write` wrote.

        Raises:
            DataError: it is damaged, or something else.
            FileNotFoundError: there is no such file.
        """
        tree = read_tree(path, kind=KIND, error=DataError)
        names = tree.pop("paths").tobytes().decode("utf-8", "surrogateescape")
        return cls(paths=names.split("\0") if names else [], **tree)


def rows_by_cluster(labels: np.ndarray, clusters: int) -> list[np.ndarray]:
    """The rows of each of the clusters 0 .. C-1, ascending."""
    order = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[order], np.arange(clusters + 1))
    return [order[edges[c] : edges[c + 1]] for c in range(clusters)]


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    centroids: np.ndarray,
    looked: np.ndarray,
    kept: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the own centroid of each row, simplified silhouette and nearest other cluster of
    the ``looked`` ones [M], ascending, whose features go into ``kept`` [M, D]."""
    count, clusters = len(labels), len(centroids)
    own, silhouettes = np.full(count, np.nan, np.float32), np.full(count, np.nan, np.float32)
    others = np.full(count, OUTLIER, np.int64)

    def measure(span: tuple[int, int]) -> None:
        rows = unit_rows(np.asarray(features[slice(*span)], np.float32))
        inside = np.flatnonzero(labels[slice(*span)] != OUTLIER)
        members = inside + span[0]
        products = np.einsum("ij,ij->i", rows[inside], centroids[labels[members]])
        own[members] = _distance(products)
        first, last = np.searchsorted(looked, span)
        chosen = looked[first:last]
        rows = rows[chosen - span[0]]
        kept[first:last] = rows
        if not clusters:
            return
        cosines = rows @ centroids.T
        inside = np.flatnonzero(labels[chosen] != OUTLIER)
        cosines[inside, labels[chosen[inside]]] = -np.inf
        nearest = cosines.argmax(axis=1)
        best = cosines[np.arange(len(rows)), nearest]
        others[chosen] = np.where(np.isfinite(best), nearest, OUTLIER)
        if clusters > 1:
            a, b = own[chosen[inside]], _distance(best[inside])
            # Both are 0 for copies of one image in two clusters: it fits either.
            silhouettes[chosen[inside]] = (b - a) / np.maximum(np.maximum(a, b), 1e-12)

    list(ordered_map(measure, spans(count, max(1, min(1024, _BLOCK_VALUES // max(clusters, 1))))))
    return own, silhouettes, others


def _numbers(ids: np.ndarray | None, count: int) -> list[Any]:
    return [""] * count if ids is None else [i if i >= 0 else "" for i in ids.tolist()]


def _decimals(values: np.ndarray) -> list[str]:
    return [f"{value:.5f}" if value == value else "" for value in values.tolist()]


def _distance(cosine: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0))
