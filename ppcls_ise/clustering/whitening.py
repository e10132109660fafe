# SPDX-License-Identifier: Apache-2.0
"""Features without the directions in which all images differ most."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from threadpoolctl import threadpool_limits

from ppcls_ise.clustering.parallel import map_rows
from ppcls_ise.clustering.row_set import as_features, duplicate_groups, unit_rows

_BLOCK_ROWS = 1024


def whitened(features: np.ndarray, *, ridge: float = 1.0) -> np.ndarray:
    """x' = N(A (x - mu)) with A'A = (C / c + ridge·I)^-1, c = trace(C) / D.

    mu and C are mean and covariance of the rows. A network that has learned little yet, without
    labels, spreads its features most along what differs most between images, which is light and
    place rather than person; here those directions weigh less. Ridge whitening, as before a
    linear discriminant (Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning",
    4.3); A is the inverse of the Cholesky factor, as a rotation changes no inner product.

    Rows of length zero (images that could not be read) stay zero and do not count. Equal rows stay
    equal bit by bit, and any number of cores gives the same bytes.

    Args:
        features: [N, D], used as float32.
        ridge: above 0; the larger, the less is changed.

    Returns:
        [N, D] float32 unit rows; unit rows of ``features`` if these are all equal. O(N·D² + D³)
        time, memory for the result and a few matrices [D, D].

    Raises:
        ValueError: a ridge of 0 or below, or NaN.
    """
    if not ridge > 0.0:
        raise ValueError(f"ridge must be above 0, got {ridge}")
    matrix = as_features(features)
    count, dim = matrix.shape
    lowest = duplicate_groups(matrix)
    filled = np.asarray(matrix.any(axis=1))
    number = max(np.count_nonzero(filled), 1)
    mean = (matrix[filled].sum(axis=0, dtype=np.float64) / number).astype(np.float32)

    def moment(span: tuple[int, int]) -> np.ndarray:
        rows = matrix[slice(*span)][filled[slice(*span)]] - mean
        return rows.T @ rows

    covariance = np.zeros((dim, dim), dtype=np.float64)
    for part in map_rows(moment, count, _BLOCK_ROWS):
        covariance += part
    scale = np.trace(covariance) / max(dim, 1)
    if not scale > 0.0:
        return unit_rows(matrix)
    with threadpool_limits(1, user_api="blas"):
        factor = cholesky(covariance / scale + ridge * np.eye(dim), lower=True)
        transform = solve_triangular(factor, np.eye(dim), lower=True).T.astype(np.float32)

    result = np.zeros_like(matrix)

    def transform_rows(span: tuple[int, int]) -> None:
        own: np.ndarray = np.arange(*span)
        own = own[filled[own] & (lowest[own] == own)]
        result[own] = unit_rows((matrix[own] - mean) @ transform)

    list(map_rows(transform_rows, count, _BLOCK_ROWS))
    return result[lowest]
