# SPDX-License-Identifier: Apache-2.0
"""What is to be thought of a clustering, in words: evidence, and the key to turn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ppcls_ise.clustering.doubts import ClusterTable
from ppcls_ise.clustering.eps_range import LARGEST_SHARE, LEAST_STABILITY, MOST_OUTLIERS, EpsRange
from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.clustering.sample_graph import GraphSettings
from ppcls_ise.metrics import cluster_quality

Row = Mapping[str, float | None]
_HUGE_SHARE, _HUGE_TIMES = 0.1, 5.0  # of all images, and of the median cluster
_MANY_OUTLIERS = 0.4
_MOSTLY = 0.6  # of the clusters
_RIGHT_PAIRS = 0.6
_LOST_MAP = 0.05
_STEP = 0.051  # of eps, that is still beside the edge of the plateau


@dataclass(frozen=True)
class Remark:
    """One observation.

    Attributes:
        level: good, info, warn or bad.
        title: in a few words.
        evidence: the numbers behind it.
        advice: which key to turn; empty where nothing is to be done.
    """

    level: str
    title: str
    evidence: str
    advice: str = ""


@dataclass(frozen=True)
class Verdict:
    headline: str
    remarks: list[Remark]


def verdict(
    record: ClusteringRecord,
    table: ClusterTable,
    eps: EpsRange | None,
    settings: GraphSettings,
    history: Sequence[Row] = (),
    *,
    numbers: Sequence[int] | None = None,
) -> Verdict:
    """Judge a clustering, and the run that it is the last of.

    Args:
        eps: see `ClusterParts.eps`.
        history: rows of history.csv, with None where a cell is empty.
        numbers: by which the clusters are called; None: 0 .. C-1.
    """
    images, clusters = len(record.labels), record.num_clusters
    outliers = int(np.count_nonzero(record.labels < 0))
    remarks = [
        *_collapse(table, images, outliers),
        *_huge(record, table, images, numbers),
        *_pieces(record, table),
        *_eps(eps, settings),
        *_stability(history),
        *_scores(history),
        *_loose(table),
        *_known(record, table),
    ]
    wrong = [remark for remark in remarks if remark.level in ("bad", "warn")]
    headline = f"{clusters:,} clusters in {images:,} images"
    headline += f" (epoch {record.epoch})" if record.epoch else ""
    headline += f"; {outliers:,} images ({100 * outliers / max(images, 1):.1f} %) have none"
    if clusters:
        headline += f"; the median cluster has {np.median(table.sizes):g} images, the largest "
        headline += f"{table.sizes.max():,}"
    if wrong:
        headline += f". What looks wrong: {'; '.join(remark.title for remark in wrong)}."
    else:
        headline += ". Nothing looks wrong in the numbers: go through the most doubtful clusters."
        remarks.insert(
            0,
            Remark(
                "good",
                "No sign of collapse, of pieces or of a wrong eps",
                "What numbers cannot say: whether each cluster is one person. The gallery below "
                "begins with those that are least sure.",
            ),
        )
    order = {"bad": 0, "warn": 1, "good": 2, "info": 3}
    return Verdict(headline, sorted(remarks, key=lambda remark: order[remark.level]))


def _collapse(table: ClusterTable, images: int, outliers: int) -> Iterator[Remark]:
    if not len(table.sizes):
        yield Remark(
            "bad",
            "no cluster at all",
            f"None of the {images:,} images has enough near neighbors to be in a cluster.",
            "Raise Clustering.eps, lower Clustering.min_samples, or begin with pretrained weights "
            "(Global.pretrained_model).",
        )
    elif outliers > MOST_OUTLIERS * images:
        yield Remark(
            "bad",
            "almost all images are outliers",
            f"{outliers:,} of {images:,} images are in no cluster.",
            "Raise Clustering.eps, or begin with pretrained weights (Global.pretrained_model).",
        )
    elif outliers > _MANY_OUTLIERS * images:
        yield Remark(
            "warn",
            "many images have no cluster",
            f"{outliers:,} of {images:,} images ({100 * outliers / images:.0f} %) are outliers and "
            "are never trained on.",
            "Raise Clustering.eps a little, lower Clustering.min_samples, or train longer "
            "(Global.epochs).",
        )


def _huge(
    record: ClusteringRecord, table: ClusterTable, images: int, numbers: Sequence[int] | None
) -> Iterator[Remark]:
    if not len(table.sizes):
        return
    largest = int(table.sizes.argmax())
    name = largest if numbers is None else numbers[largest]
    size, median = int(table.sizes[largest]), float(np.median(table.sizes))
    share = size / max(images, 1)
    known = []
    if table.tracklets is not None:
        known.append(f"{table.tracklets[largest]} tracklets")
    if table.identities is not None:
        known.append(f"{table.identities[largest]} identities by the file names")
    if table.parts[largest] > 1:
        known.append(f"it falls into {table.parts[largest]} parts at a smaller eps")
    evidence = (
        f"Cluster {name} holds {size:,} of {images:,} images ({100 * share:.0f} %); the median "
        f"cluster has {median:g}{'; ' if known else ''}{', '.join(known)}."
    )
    if share > LARGEST_SHARE:
        yield Remark(
            "bad",
            "one cluster holds most images",
            evidence,
            "The features have collapsed or eps is far too large: lower Clustering.eps or "
            "Optimizer.lr.learning_rate.",
        )
    elif size > 20 and share > _HUGE_SHARE and size > _HUGE_TIMES * median:
        yield Remark(
            "warn",
            "one cluster is far larger than the others",
            evidence,
            f"Look at cluster {name} in the gallery; if it is several people, lower "
            "Clustering.eps.",
        )


def _pieces(record: ClusteringRecord, table: ClusterTable) -> Iterator[Remark]:
    """Clusters that are tracklets, or that do not cross cameras."""
    clusters = len(table.sizes)
    if not clusters:
        return
    single = table.tracklets is not None and np.median(table.tracklets) <= 1
    if single and record.tracklets is not None and len(np.unique(record.tracklets)) > clusters:
        share = float(np.mean(table.tracklets == 1))
        if share > _MOSTLY:
            yield Remark(
                "bad",
                "clusters are tracklets rather than people",
                f"{100 * share:.0f} % of the {clusters:,} clusters are a single tracklet; there "
                f"are {len(np.unique(record.tracklets)):,} tracklets.",
                "Frames of one tracklet are each other's nearest neighbors: take one frame in "
                "several, let neighbors be sought in other tracklets "
                "(Clustering.tracklet_aware), or raise Clustering.eps.",
            )
            return
    if record.camids is not None and table.cameras is not None:
        there = len(np.unique(record.camids[record.camids >= 0]))
        share = float(np.mean(table.cameras == 1))
        if there > 1 and share > _MOSTLY:
            yield Remark(
                "warn",
                "clusters hardly cross cameras",
                f"{100 * share:.0f} % of the {clusters:,} clusters are of a single camera; there "
                f"are {there} cameras. (That is as it should be only where people rarely pass two "
                "of them.)",
                "Set Clustering.camera_aware=True, which looks for neighbors across cameras, or "
                "raise Clustering.eps.",
            )


def _eps(eps: EpsRange | None, settings: GraphSettings) -> Iterator[Remark]:
    if eps is None:
        return
    now = f"Clustering.eps is {settings.eps:g}"
    if eps.plateau is None or eps.recommended is None:
        yield Remark(
            "warn",
            "no eps gives stable clusters",
            f"{now}; {eps.reason}.",
            "Train longer (Global.epochs), or begin with better weights (Global.pretrained_model).",
        )
        return
    low, high = eps.plateau
    evidence = f"{now}; {eps.reason}."
    advice = f"Set Clustering.eps={eps.recommended:g}."
    merges = high < eps.points[-1].eps
    if settings.eps > high:
        yield Remark("bad", "eps is above its plateau, where people merge", evidence, advice)
    elif settings.eps < low:
        yield Remark(
            "warn", "eps is below its plateau, where people are in pieces", evidence, advice
        )
    elif merges and settings.eps > high - _STEP and eps.recommended < settings.eps:
        yield Remark("warn", "eps is at the upper edge of its plateau", evidence, advice)
    elif settings.eps < low + _STEP and eps.recommended > settings.eps and high > low + _STEP:
        yield Remark("warn", "eps is at the lower edge of its plateau", evidence, advice)
    else:
        yield Remark("good", "eps is within its plateau", evidence)


def _stability(history: Sequence[Row]) -> Iterator[Remark]:
    values = [
        (row["epoch"], row["stability"]) for row in history if row.get("stability") is not None
    ]
    if not values:
        return
    epoch, last = values[-1]
    assert last is not None
    evidence = (
        f"Adjusted Rand index of the labels of epoch {epoch:g} with those of the clustering "
        f"before: {last:.2f} (1: the same)."
    )
    if last < LEAST_STABILITY:
        yield Remark(
            "warn",
            "labels still change from epoch to epoch",
            evidence,
            "Train longer (Global.epochs), with a lower Optimizer.lr.learning_rate at the end, or "
            "choose eps within its plateau.",
        )
    else:
        yield Remark("good", "labels have settled", evidence)


def _scores(history: Sequence[Row]) -> Iterator[Remark]:
    scored = [(row["mAP"], row["epoch"]) for row in history if row.get("mAP") is not None]
    if not scored:
        return
    best, epoch = max(scored, key=lambda item: item[0] or 0.0)
    last, last_epoch = scored[-1]
    assert best is not None and last is not None
    evidence = (
        f"mAP {last:.3f} after epoch {last_epoch:g}, {scored[0][0]:.3f} after epoch "
        f"{scored[0][1]:g}; the best is {best:.3f} after epoch {epoch:g}."
    )
    if last < best - _LOST_MAP:
        yield Remark(
            "warn",
            "the last weights are not the best",
            evidence,
            "Take best_model.pdparams, and a lower Optimizer.lr.learning_rate or fewer "
            "Global.epochs next time.",
        )
    else:
        yield Remark("info", "evaluation", evidence)


def _loose(table: ClusterTable) -> Iterator[Remark]:
    if len(table.sizes) < 2 or not np.isfinite(table.silhouettes).any():
        return
    low = int(np.count_nonzero(["low silhouette" in flags for flags in table.flags]))
    apart = int(np.count_nonzero(table.parts > 1))
    looked = int(np.count_nonzero(table.parts))
    evidence = (
        f"Mean silhouette {np.nanmean(table.silhouettes):.2f}; {low:,} of {len(table.sizes):,} "
        f"clusters are below 0.1, and {apart:,} of {looked:,} that were looked at fall apart at a "
        "smaller eps."
    )
    if low > _MOSTLY * len(table.sizes):
        yield Remark(
            "warn",
            "most clusters are hardly apart from their neighbors",
            evidence,
            "Train longer (Global.epochs), or lower Clustering.eps.",
        )
    else:
        yield Remark("info", "how far clusters are apart", evidence)


def _known(record: ClusteringRecord, table: ClusterTable) -> Iterator[Remark]:
    if record.pids is None or table.identities is None or not record.num_clusters:
        return
    quality = cluster_quality(record.labels, record.pids)
    pure = float(np.mean(table.identities == 1))
    level, title, advice = "info", "against the identities in the file names", ""
    if quality.pair_precision < _RIGHT_PAIRS:
        level, title = "warn", "clusters mix people, by the file names"
        advice = "Lower Clustering.eps, or train longer (Global.epochs)."
    elif quality.pair_recall < _RIGHT_PAIRS:
        level, title = "warn", "people are in pieces, by the file names"
        advice = "Raise Clustering.eps, or train longer (Global.epochs)."
    yield Remark(
        level,
        title,
        f"Training never sees them. {100 * pure:.0f} % of the clusters hold one identity; of all "
        f"pairs of images put together {100 * quality.pair_precision:.0f} % belong together, and "
        f"of those that belong together {100 * quality.pair_recall:.0f} % were; NMI "
        f"{quality.nmi:.3f}, ARI {quality.ari:.3f}, {len(np.unique(record.pids)):,} identities.",
        advice,
    )
