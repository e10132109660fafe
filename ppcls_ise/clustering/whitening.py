# SPDX-License-Identifier: Apache-2.0
"""Features without the directions in which all images differ most."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from threadpoolctl import threadpool_limits

from ppcls_ise.clustering.centroids import cluster_centroids
from ppcls_ise.clustering.parallel import map_rows
from ppcls_ise.clustering.processes import ONE_PROCESS, Processes, own_rows
from ppcls_ise.clustering.row_set import as_features, duplicate_groups, unit_rows

_BLOCK_ROWS = 1024


def whitened(
    features: np.ndarray,
    *,
    basis: np.ndarray | None = None,
    ridge: float = 3.0,
    processes: Processes = ONE_PROCESS,
) -> np.ndarray:
    """x' = N(A (x - mu)) with A'A = (C / c + ridge·I)^-1, c = trace(C) / min(D, M - 1).

    mu and C are mean and covariance of the M rows of ``basis``: Clustering (18) and (19). A network
    that has learned little yet, without labels, spreads its features most along what differs most
    between images, which is light and place rather than person; here those directions weigh less.
    c is the mean variance along the directions that M rows can have, however wide they are.
    Ridge whitening, as before a linear discriminant (Hastie, Tibshirani, Friedman, "The Elements of
    Statistical Learning", 4.3); A is the inverse of the Cholesky factor, as a rotation changes no
    inner product.

    Rows of length zero (images that could not be read) stay zero and do not count. Equal rows stay
    equal bit by bit, and any number of cores and processes gives the same bytes.

    Args:
        features: [N, D], used as float32.
        basis: [M, D], one row for each thing that counts once, as the means of tracklets; None:
            ``features``.
        ridge: above 0; the larger, the less is changed.
        processes: who shares the rows out; all of them call this alike and receive all rows.

    Returns:
        [N, D] float32 unit rows; unit rows of ``features`` if those of ``basis`` are all equal.
        O((N + M)·D² + D³) time, memory for the result and a few matrices [D, D].

    Raises:
        ValueError: a ridge of 0 or below, or NaN; rows of another width in ``basis``.
    """
    if not ridge > 0.0:
        raise ValueError(f"ridge must be above 0, got {ridge}")
    matrix = as_features(features)
    fitted = matrix if basis is None else as_features(basis, name="basis")
    if fitted.shape[1] != matrix.shape[1]:
        raise ValueError(f"basis must have rows of {matrix.shape[1]} values, got {fitted.shape[1]}")
    mean, covariance, rank = _moments(fitted)
    dim = len(mean)
    scale = np.trace(covariance) / max(rank, 1)
    if not scale > 0.0:
        return unit_rows(matrix)
    with threadpool_limits(1, user_api="blas"):
        factor = cholesky(covariance / scale + ridge * np.eye(dim), lower=True)
        transform = solve_triangular(factor, np.eye(dim), lower=True).T.astype(np.float32)
    lowest = duplicate_groups(matrix, processes=processes)
    # A row's bits depend on the block that it is multiplied in.
    blocks = own_rows(-(-len(matrix) // _BLOCK_ROWS), processes)
    first, last = (min(_BLOCK_ROWS * block, len(matrix)) for block in blocks)
    result = np.zeros((last - first, dim), np.float32)

    def transform_rows(span: tuple[int, int]) -> None:
        own: np.ndarray = np.arange(*span) + first
        own = own[matrix[own].any(axis=1) & (lowest[own] == own)]
        result[own - first] = unit_rows((matrix[own] - mean) @ transform)

    list(map_rows(transform_rows, last - first, _BLOCK_ROWS))
    copies = np.flatnonzero(lowest != np.arange(len(matrix)))
    copied = np.unique(lowest[copies])
    rows = processes.whole(result[copied[(copied >= first) & (copied < last)] - first])
    copies = copies[(copies >= first) & (copies < last)]
    result[copies - first] = rows[np.searchsorted(copied, lowest[copies])]
    return processes.whole(result)


def whitened_by_tracklet(
    features: np.ndarray,
    tracklets: np.ndarray | None,
    *,
    processes: Processes = ONE_PROCESS,
) -> np.ndarray:
    """`whitened` such that every tracklet counts once, Clustering (18).

    Args:
        features: [N, D].
        tracklets: [N] numbers 0 .. T-1, or None: every image counts.
        processes: see there.
    """
    means = None if tracklets is None else cluster_centroids(features, tracklets)
    return whitened(features, basis=means, processes=processes)


def _moments(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean [D] float32 and covariance [D, D] float64, up to a factor, of the rows that are not
    zero, and the rank that the latter can have."""
    count, dim = matrix.shape
    filled = np.asarray(matrix.any(axis=1))
    number = max(np.count_nonzero(filled), 1)
    # Rows of zeros add nothing, and leaving them out would be a copy.
    mean = (matrix.sum(axis=0, dtype=np.float64) / number).astype(np.float32)

    def moment(span: tuple[int, int]) -> np.ndarray:
        rows = matrix[slice(*span)][filled[slice(*span)]] - mean
        return rows.T @ rows

    covariance = np.zeros((dim, dim), dtype=np.float64)
    for part in map_rows(moment, count, _BLOCK_ROWS):
        covariance += part
    return mean, covariance, min(dim, number - 1)
