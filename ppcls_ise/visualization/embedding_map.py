# SPDX-License-Identifier: Apache-2.0
"""Features as a map: similar images beside each other."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

_COMPONENTS = 50
_PERPLEXITY = 30.0
_SIDE = 1000


def embedding_map(features: np.ndarray) -> np.ndarray:
    """Places on a map by t-SNE of the 50 principal components; always the same for the same rows.

    Args:
        features: [n, D] float32, some thousands of rows at most.

    Returns:
        [n, 2] int64 in 0 .. 1000. Few rows, or rows that are all alike, are put where their first
        two components are.
    """
    count = len(features)
    if not count:
        return np.empty((0, 2), np.int64)
    centered = features - features.mean(axis=0)
    if count < 8 or features.shape[1] < 2 or np.abs(centered).max() < 1e-6:
        places = np.zeros((count, 2))
        if count > 2 and features.shape[1] > 1 and np.abs(centered).max() >= 1e-6:
            places = PCA(2, random_state=0).fit_transform(centered)
    else:
        parts = min(_COMPONENTS, count - 1, features.shape[1])
        reduced = PCA(parts, random_state=0).fit_transform(centered)
        perplexity = min(_PERPLEXITY, (count - 1) / 3)
        places = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.maximum(high - low, 1e-12)
    return np.rint(scaled * _SIDE).astype(np.int64)
