# SPDX-License-Identifier: Apache-2.0
"""k-reciprocal Jaccard distances the way they are usually computed: dense N x N matrices."""

import time

import numpy as np

_BLOCK_ROWS = 1024


def nearest(features: np.ndarray, k: int) -> np.ndarray:
    """Indices [N, k] of the largest inner products per row, ties by ascending index."""
    rank = np.empty((len(features), k), dtype=np.int64)
    for start in range(0, len(features), _BLOCK_ROWS):
        scores = features[start : start + _BLOCK_ROWS] @ features.T
        found = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(-np.take_along_axis(scores, found, axis=1), axis=1, kind="stable")
        rank[start : start + _BLOCK_ROWS] = np.take_along_axis(found, order, axis=1)
    return rank


def jaccard_distances(
    features: np.ndarray, k1: int = 30, k2: int = 6
) -> tuple[np.ndarray, dict[str, float]]:
    """Dense Jaccard distances [N, N] float32, and the seconds of "neighbors" and "jaccard"."""
    started = time.perf_counter()
    count = len(features)
    rank = nearest(features, min(k1, count))
    searched = time.perf_counter()
    half = rank[:, : round(k1 / 2) + 1]
    mutual = [row[(rank[row] == i).any(axis=1)] for i, row in enumerate(rank)]
    close = [row[(half[row] == i).any(axis=1)] for i, row in enumerate(half)]
    members = np.zeros((count, count), dtype=np.float32)
    for i, own in enumerate(mutual):
        sets = [own]
        sets += [close[j] for j in own if 3 * np.isin(close[j], own).sum() > 2 * len(close[j])]
        chosen = np.unique(np.concatenate(sets))
        if not len(chosen):
            continue
        weight = np.exp(2 * (features[chosen] @ features[i]) - 2)
        members[i, chosen] = weight / weight.sum()
    if k2 > 1:
        averaged = np.empty_like(members)
        for i in range(count):
            averaged[i] = members[rank[i, :k2]].mean(axis=0)
        members = averaged
        del averaged
    holders = [np.flatnonzero(members[:, q]) for q in range(count)]
    distances = np.empty((count, count), dtype=np.float32)
    shared = np.empty(count, dtype=np.float32)
    for i in range(count):
        shared[:] = 0
        for q in np.flatnonzero(members[i]):
            rows = holders[q]
            shared[rows] += np.minimum(members[i, q], members[rows, q])
        distances[i] = np.maximum(1 - shared / (2 - shared), 0)
    seconds = {"neighbors": searched - started, "jaccard": time.perf_counter() - searched}
    return distances, seconds
