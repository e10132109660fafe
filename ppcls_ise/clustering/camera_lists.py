# SPDX-License-Identifier: Apache-2.0
"""Neighbor lists within a camera and across cameras."""

from __future__ import annotations

import numpy as np

from ppcls_ise.clustering.membership import Lists
from ppcls_ise.clustering.neighbors import Backend, search
from ppcls_ise.clustering.parallel import Progress


def camera_neighbors(
    features: np.ndarray,
    camera_ids: np.ndarray,
    k_intra: int,
    k_inter: int,
    *,
    backend: str | Backend = "auto",
    progress: Progress | None = None,
) -> tuple[Lists, Lists]:
    """Nearest rows of the own camera (the row itself included) and of all other cameras.

    Lists shorter than asked (few images, a single camera) end with index -1.

    Args:
        features: [N, D].
        camera_ids: [N] integers.
        k_intra: length of the lists within a camera.
        k_inter: length of the lists across cameras.
        backend: see :func:`ppcls_ise.clustering.k_nearest`.
        progress: called as progress("neighbors", done, total) during the search across cameras.

    Returns:
        (indices [N, k_intra] int64, similarities [N, k_intra] float32), the same with k_inter.
    """
    count = len(features)
    own_indices = np.full((count, k_intra), -1, dtype=np.int64)
    own_values = np.full((count, k_intra), -np.inf, dtype=np.float32)
    for camera in np.unique(camera_ids):
        rows = np.flatnonzero(camera_ids == camera)
        indices, values = search(
            features if len(rows) == count else features[rows], k_intra, backend=backend
        )
        own_indices[rows, : indices.shape[1]] = rows[indices]
        own_values[rows, : indices.shape[1]] = values
    others = search(features, k_inter, groups=camera_ids, backend=backend, progress=progress)
    return (own_indices, own_values), others
