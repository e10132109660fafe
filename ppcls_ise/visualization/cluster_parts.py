# SPDX-License-Identifier: Apache-2.0
"""A clustering as the parts of a page: gallery, pairs, splits, outliers, map of the features."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppcls_ise.clustering.dbscan import OUTLIER
from ppcls_ise.clustering.doubts import (
    FLAGS,
    ClusterTable,
    cluster_table,
    likely_pairs,
    nearest_across,
)
from ppcls_ise.clustering.eps_range import DEFAULT_EPS, EpsRange
from ppcls_ise.clustering.record import ClusteringRecord, rows_by_cluster
from ppcls_ise.clustering.sample_graph import (
    GraphSettings,
    eps_range_of,
    graph_of,
    sample_of,
    splits_of,
)
from ppcls_ise.errors import shown
from ppcls_ise.visualization.embedding_map import embedding_map
from ppcls_ise.visualization.thumbnails import Thumbnails

_GRAPH_IMAGES = 5000  # of which a Jaccard graph is made once more
_CARDS = {"doubtful": 120, "largest": 40, "tightest": 40, "others": 40}
_CROPS, _CROPS_OF_LARGE, _LARGE = 16, 32, 100
_PAIRS, _SPLITS, _OUTLIERS, _DOTS = 30, 20, 48, 1200
_CROPS_OF_PAIR = 4
_NAME_BYTES = 2_000_000  # of the images that have no picture, for the search by name


class Crops:
    """The images of a page, each once, by number.

    Attributes:
        entries: per image what the page says of it, as JSON: p path below ``root``, t number of the
            thumbnail, c cluster, m camera, k tracklet, n identity, d distance, s silhouette.
        root: folder that holds all images.
    """

    def __init__(
        self, record: ClusteringRecord, thumbnails: Thumbnails, numbers: Sequence[int]
    ) -> None:
        self._record, self._thumbnails = record, thumbnails
        self.shown = [int(number) for number in numbers]
        self._numbers: dict[int, int] = {}
        self.entries: list[dict[str, Any]] = []
        self.root = _root(record.paths)

    def number(self, row: int) -> int:
        """The number of image ``row``, which gets a thumbnail if there is room."""
        if row not in self._numbers:
            self._numbers[row] = len(self.entries)
            self.entries.append(self._entry(row))
        return self._numbers[row]

    def other(self, image: dict[str, Any]) -> int:
        """The number of an image of query or gallery, which is not among the clustered ones."""
        path = image["path"]
        inside = path.startswith(self.root)
        entry = {"p": _text(path[len(self.root) :] if inside else path), "c": -2}
        entry["t"] = self._thumbnails.number(path)
        for key, name in (("m", "camid"), ("n", "pid")):
            if image[name] is not None:
                entry[key] = image[name]
        self.entries.append(entry)
        return len(self.entries) - 1

    def cluster(self, cluster: int) -> int:
        """The number by which the page calls a cluster; -1 stays."""
        return self.shown[cluster] if cluster >= 0 else -1

    def name(self, row: int) -> str:
        """The path below ``root``, as it can be written into a page."""
        return _text(self._record.paths[row][len(self.root) :])

    def _entry(self, row: int) -> dict[str, Any]:
        record = self._record
        entry: dict[str, Any] = {
            "p": self.name(row),
            "t": self._thumbnails.number(record.paths[row]),
            "c": self.cluster(record.labels[row]),
        }
        for key, values in (("m", record.camids), ("k", record.tracklets), ("n", record.pids)):
            if values is not None and values[row] >= 0:
                entry[key] = int(values[row])
        for key, values in (("d", record.distances), ("s", record.silhouettes)):
            if np.isfinite(values[row]):
                entry[key] = round(float(values[row]), 3)
        return entry


@dataclass(frozen=True)
class ClusterParts:
    """What the template of the page shows of a clustering.

    Attributes:
        table: per cluster.
        eps: clusters over a range of eps; None without images.
        cards, pairs, splits: dictionaries for the template, best known first.
        outliers: numbers of crops.
        ranked: queries with a list of each evaluation, for the template.
        dots: (x, y, number of the crop), x and y in 0 .. 1000.
        notes: what is a sample, in sentences.
        data: JSON for the page's script.
    """

    table: ClusterTable
    eps: EpsRange | None
    cards: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    splits: list[dict[str, Any]]
    outliers: list[int]
    ranked: list[dict[str, Any]]
    notes: list[str]
    data: dict[str, Any]
    flags: Sequence[str] = field(default=FLAGS)


def cluster_parts(
    record: ClusteringRecord,
    settings: GraphSettings,
    thumbnails: Thumbnails,
    *,
    ranked: Sequence[dict[str, Any]] = (),
    numbers: Sequence[int] | None = None,
) -> ClusterParts:
    """Look at a clustering from all sides.

    Args:
        ranked: evaluations of `ppcls_ise.engine.record.ranked_lists`.
        numbers: by which the page calls the C clusters; None: 0 .. C-1.

    Cost: one or two Jaccard graphs of at most 5,000 images, t-SNE of at most 1,200, the distances
    of all centroids, and some thousands of thumbnails; little of it grows with N.
    """
    crops = Crops(record, thumbnails, range(record.num_clusters) if numbers is None else numbers)
    notes: list[str] = []
    plain = cluster_table(record)
    eps, parts, found = _graphs(record, settings, plain.doubts, notes)
    table = cluster_table(record, parts)
    members = _members(record)
    cards = _cards(record, table, members, crops, notes)
    kept = rows_by_cluster(record.labels[record.rows], record.num_clusters)
    pairs = _pairs(record, table, members, kept, crops)
    splits = [
        {
            "cluster": crops.cluster(cluster),
            "size": int(table.sizes[cluster]),
            "eps": smaller,
            "parts": [_part(record, positions, crops) for positions in pieces],
        }
        for cluster, (pieces, smaller) in sorted(
            found.items(), key=lambda item: (-item[1][1], -table.doubts[item[0]])
        )[:_SPLITS]
    ]
    outliers = np.flatnonzero(record.labels == OUTLIER)
    if len(outliers) > _OUTLIERS:
        notes.append(f"{_OUTLIERS} of {len(outliers):,} images without a cluster are shown")
        outliers = outliers[np.linspace(0, len(outliers) - 1, _OUTLIERS).astype(int)]
    outlier_crops = [crops.number(int(row)) for row in outliers]
    queries = _ranked(ranked, crops)
    dots = _dots(record, crops, notes)
    if thumbnails.left_out:
        notes.append(
            f"{thumbnails.left_out:,} images are shown by name only, so that this file stays small"
        )
    if thumbnails.missing:
        first = next(iter(thumbnails.missing.values()))
        notes.append(f"{len(thumbnails.missing):,} images cannot be read any more: {first}")
    data = {
        "root": _text(crops.root),
        "crops": crops.entries,
        "thumbs": thumbnails.uris,
        "names": _names(cards, members, crops, notes),
        "dots": dots,
        "nearest": dict(zip(outlier_crops, record.others[outliers].tolist(), strict=True)),
    }
    return ClusterParts(table, eps, cards, pairs, splits, outlier_crops, queries, notes, data)


def _graphs(
    record: ClusteringRecord, settings: GraphSettings, doubts: np.ndarray, notes: list[str]
) -> tuple[EpsRange | None, np.ndarray | None, dict[int, tuple[list[np.ndarray], float]]]:
    """The range of eps, on clusters at random, and what falls apart, of the most doubtful."""
    if not record.num_clusters:
        return None, None, {}
    largest = max(*DEFAULT_EPS, settings.eps)
    random = np.random.default_rng(0).permutation(record.num_clusters)
    positions = sample_of(record, _GRAPH_IMAGES, random)
    graph = graph_of(record, positions, settings, largest)
    values = sorted({*DEFAULT_EPS, settings.eps})
    eps = eps_range_of(record, positions, graph, settings, values)
    if len(positions) < len(record.labels):
        notes.append(
            f"the range of eps is measured on {len(positions):,} of {len(record.labels):,} images "
            "(whole clusters at random), and whether a cluster falls apart on the most doubtful of "
            f"about {_GRAPH_IMAGES:,} images"
        )
        positions = sample_of(record, _GRAPH_IMAGES, np.argsort(-doubts, kind="stable"))
        graph = graph_of(record, positions, settings, settings.eps)
    return eps, *splits_of(record, positions, graph, settings)


def _cards(
    record: ClusteringRecord,
    table: ClusterTable,
    members: list[np.ndarray],
    crops: Crops,
    notes: list[str],
) -> list[dict[str, Any]]:
    orders = {
        "doubtful": np.argsort(-table.doubts, kind="stable"),
        "largest": np.argsort(-table.sizes, kind="stable"),
        "tightest": np.argsort(table.widths, kind="stable"),
        "others": np.random.default_rng(0).permutation(record.num_clusters),
    }
    chosen = np.unique(np.concatenate([orders[kind][:count] for kind, count in _CARDS.items()]))
    if len(chosen) < record.num_clusters:
        counts = ", ".join(f"{count} {kind}" for kind, count in _CARDS.items())
        notes.append(
            f"{len(chosen)} of {record.num_clusters:,} clusters are shown ({counts}); all of them "
            "are in the table of clusters beside this file"
        )
    order = chosen[np.argsort(-table.doubts[chosen], kind="stable")]
    return [_card(record, table, members[cluster], int(cluster), crops) for cluster in order]


def _card(
    record: ClusteringRecord, table: ClusterTable, rows: np.ndarray, cluster: int, crops: Crops
) -> dict[str, Any]:
    some = _evenly(rows, _CROPS_OF_LARGE if len(rows) > _LARGE else _CROPS)
    silhouette = float(table.silhouettes[cluster])
    counts = {"camera": table.cameras, "tracklet": table.tracklets, "identity": table.identities}
    return {
        "cluster": crops.cluster(cluster),
        "size": len(rows),
        "silhouette": None if np.isnan(silhouette) else silhouette,
        "width": float(table.widths[cluster]),
        "doubt": float(table.doubts[cluster]),
        "flags": table.flags[cluster],
        "counts": {name: int(c[cluster]) for name, c in counts.items() if c is not None},
        "crops": [crops.number(int(row)) for row in some],
    }


def _pairs(
    record: ClusteringRecord,
    table: ClusterTable,
    members: list[np.ndarray],
    kept: list[np.ndarray],
    crops: Crops,
) -> list[dict[str, Any]]:
    pairs = []
    for pair in likely_pairs(record, table.widths, _PAIRS):
        a, b = pair.clusters
        across = None
        if len(kept[a]) and len(kept[b]):
            left, right, mutual = nearest_across(record, a, b, kept)
            rows = record.rows[[left, right]]
            across = {"crops": [crops.number(int(row)) for row in rows], "mutual": mutual}
        sides = [
            {
                "cluster": crops.cluster(cluster),
                "size": len(members[cluster]),
                "crops": [
                    crops.number(int(row)) for row in _evenly(members[cluster], _CROPS_OF_PAIR)
                ],
            }
            for cluster in pair.clusters
        ]
        pairs.append({"pair": pair, "sides": sides, "across": across})
    return pairs


def _part(record: ClusteringRecord, positions: np.ndarray, crops: Crops) -> dict[str, Any]:
    rows = record.rows[positions]
    rows = rows[np.argsort(record.distances[rows], kind="stable")]
    return {
        "size": len(rows),
        "crops": [crops.number(int(row)) for row in _evenly(rows, _CROPS_OF_PAIR)],
    }


def _ranked(evaluations: Sequence[dict[str, Any]], crops: Crops) -> list[dict[str, Any]]:
    """The lists of one query over the evaluations beside each other."""
    queries: dict[str, dict[str, Any]] = {}
    for evaluation in evaluations:
        epoch = evaluation["epoch"]
        title = f"after epoch {epoch}" if epoch else "before training"
        for query in evaluation["queries"]:
            entry = queries.setdefault(
                query["path"],
                {
                    "name": _text(os.path.basename(query["path"])),
                    "camera": query["camid"],
                    "crop": crops.other(query),
                    "lists": [],
                },
            )
            hits = [
                {
                    "crop": crops.other(hit),
                    "score": hit["score"],
                    "camera": hit["camid"],
                    "kind": _kind(query["pid"], hit["pid"]),
                }
                for hit in query["hits"]
            ]
            entry["lists"].append({"title": title, "hits": hits})
    return list(queries.values())


def _kind(query: int | None, hit: int | None) -> str:
    if query is None or hit is None:
        return ""
    return "same" if query == hit else "other"


def _dots(record: ClusteringRecord, crops: Crops, notes: list[str]) -> list[tuple[int, int, int]]:
    positions: np.ndarray = np.arange(len(record.rows))
    if len(positions) > _DOTS:
        chosen = np.random.default_rng(0).choice(len(positions), _DOTS, replace=False)
        positions = np.sort(chosen)
        notes.append(f"the map shows {_DOTS:,} of {len(record.labels):,} images, drawn at random")
    places = embedding_map(record.unit_features(positions))
    rows = record.rows[positions]
    return [
        (int(x), int(y), crops.number(int(row))) for (x, y), row in zip(places, rows, strict=True)
    ]


def _names(
    cards: list[dict[str, Any]], members: list[np.ndarray], crops: Crops, notes: list[str]
) -> dict[int, str]:
    """For each card the names of all its images, as far as there is room."""
    names: dict[int, str] = {}
    left = _NAME_BYTES
    for card in cards:
        rows = members[crops.shown.index(card["cluster"])]
        text = "\n".join(crops.name(int(row)) for row in rows)
        left -= len(text)
        if left < 0:
            notes.append(
                "the search by name finds images that are shown, and not all of the others"
            )
            break
        names[card["cluster"]] = text
    return names


def _members(record: ClusteringRecord) -> list[np.ndarray]:
    """The images of each cluster, nearest to the centroid first."""
    return [
        rows[np.argsort(record.distances[rows], kind="stable")]
        for rows in rows_by_cluster(record.labels, record.num_clusters)
    ]


def _evenly(rows: np.ndarray, count: int) -> np.ndarray:
    """``count`` of the rows, from the first to the last."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _root(paths: Sequence[str]) -> str:
    """The folder that holds all, with its separator at the end."""
    if not paths:
        return ""
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # some absolute, some not
        return ""
    return f"{common.rstrip(os.sep)}{os.sep}" if common else ""


def _text(path: str) -> str:
    """``path`` itself where it is text, else with escapes."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return shown(path)
    return path
