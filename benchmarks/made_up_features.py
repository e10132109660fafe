# SPDX-License-Identifier: Apache-2.0
"""Made-up features that cluster about as well as those of a half-trained network."""

import numpy as np

_BLOCK_ROWS = 2048
_SHARED = 64


def clustered_features(
    count: int, dim: int, *, per_identity: int = 20, seed: int = 0
) -> np.ndarray:
    """Unit rows [count, dim] float32 of count / per_identity identities, in random order.

    Part of the variation between and within identities lies in a common subspace of 64 directions,
    and images differ in how far they stray: about a tenth to a third of them become outliers.
    """
    rng = np.random.default_rng(seed)
    identities = max(1, count // per_identity)
    identity = rng.integers(0, identities, count)
    shared = min(_SHARED, dim)
    basis = _normal(rng, shared, dim) / np.sqrt(shared)
    centers = 0.6 * (_normal(rng, identities, shared) @ basis + _normal(rng, identities, dim))
    stray = rng.uniform(0.6, 1.8, (count, 1)).astype(np.float32)
    features = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, _BLOCK_ROWS):
        rows = slice(start, min(start + _BLOCK_ROWS, count))
        size = rows.stop - start
        noise = 0.9 * (_normal(rng, size, shared) @ basis) + 0.5 * _normal(rng, size, dim)
        features[rows] = centers[identity[rows]] + stray[rows] * noise
        features[rows] /= np.linalg.norm(features[rows], axis=1, keepdims=True)
    return features


def _normal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.standard_normal((rows, columns), dtype=np.float32)
