# SPDX-License-Identifier: Apache-2.0
"""Agreement of pseudo-labels with known identities. For information: training never uses it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix


@dataclass(frozen=True)
class ClusterQuality:
    """Agreement of two partitions, each value 1 for equal partitions.

    Attributes:
        nmi: normalized mutual information (arithmetic mean of the entropies), in [0, 1].
        ari: adjusted Rand index, 0 expected by chance.
        pair_precision: share of the pairs put together that belong together; 1.0 without pairs.
        pair_recall: share of the pairs that belong together that are put together; 1.0 without.
        pair_f1: harmonic mean of the two, 0.0 if both are 0.
    """

    nmi: float
    ari: float
    pair_precision: float
    pair_recall: float
    pair_f1: float


def cluster_quality(labels: np.ndarray, pids: np.ndarray) -> ClusterQuality:
    """Compare pseudo-labels with identities; every outlier (-1) counts as a cluster of its own.

    Args:
        labels: [N] int64 pseudo-labels, -1 = outlier.
        pids: [N] integer identities.

    Returns:
        ClusterQuality; all values NaN for N = 0. O(N) time up to a sort.

    Raises:
        ValueError: the shapes differ.
    """
    found, truth = np.asarray(labels), np.asarray(pids)
    if found.ndim != 1 or found.shape != truth.shape:
        raise ValueError(f"labels and pids must be [N] alike, got {found.shape} and {truth.shape}")
    if not len(found):
        nan = float("nan")
        return ClusterQuality(nan, nan, nan, nan, nan)
    found = _apart(found)
    with _many_clusters():
        (_, wrong), (missed, right) = pair_confusion_matrix(truth, found).tolist()
        nmi = float(normalized_mutual_info_score(truth, found))
        ari = float(adjusted_rand_score(truth, found))
    precision = right / (right + wrong) if right + wrong else 1.0
    recall = right / (right + missed) if right + missed else 1.0
    total = precision + recall
    return ClusterQuality(
        nmi=nmi,
        ari=ari,
        pair_precision=precision,
        pair_recall=recall,
        pair_f1=2 * precision * recall / total if total else 0.0,
    )


def label_stability(before: np.ndarray, labels: np.ndarray) -> float:
    """Adjusted Rand index of two clusterings of the same images: 1 for equal ones, 0 expected by
    chance; every outlier (-1) counts as a cluster of its own. NaN for N = 0.

    Args:
        before, labels: [N] int64.

    Raises:
        ValueError: the shapes differ.
    """
    if before.shape != labels.shape or labels.ndim != 1:
        raise ValueError(f"labels must be [N] alike, got {before.shape} and {labels.shape}")
    if not len(labels):
        return float("nan")
    with _many_clusters():
        return float(adjusted_rand_score(_apart(before), _apart(labels)))


@contextmanager
def _many_clusters() -> Iterator[None]:
    """scikit-learn warns where there are more clusters than half of the rows, which is what
    outliers come to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield


def _apart(labels: np.ndarray) -> np.ndarray:
    """A copy in which every outlier is a cluster of its own."""
    labels = labels.astype(np.int64)
    outlier = labels < 0
    labels[outlier] = labels.max() + 1 + np.arange(np.count_nonzero(outlier))
    return labels
