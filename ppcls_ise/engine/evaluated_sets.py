# SPDX-License-Identifier: Apache-2.0
"""What is known of the images of an evaluation."""

import re

import numpy as np

from ppcls_ise.data import ReIDDataset
from ppcls_ise.metrics import Labels

# What a data set adds to a name that occurs in several of its cameras.
_CAMERA = re.compile(r" \(camera [^)]*\)$")


def known_of_both(query: ReIDDataset, gallery: ReIDDataset) -> tuple[Labels, Labels]:
    """Identities, cameras and tracklets of both sides.

    Each data set counts its own tracklets; here those of one name and camera have one number.
    """
    order: dict[tuple[int | None, str], int] = {}
    sides = []
    for dataset in (query, gallery):
        tracklets = dataset.tracklet_ids
        if tracklets is not None:
            names = [_CAMERA.sub("", name) for name in dataset.tracklet_names or []]
            first = np.unique(tracklets[tracklets >= 0], return_index=True)[1]
            rows = np.flatnonzero(tracklets >= 0)[first]
            cameras = (
                [None] * len(rows) if dataset.camids is None else dataset.camids[rows].tolist()
            )
            keys = zip(cameras, names, strict=True)
            numbers = [order.setdefault(key, len(order)) for key in keys]
            tracklets = np.append(numbers, -1)[tracklets]
        sides.append(Labels(dataset.pids, dataset.camids, tracklets))
    return sides[0], sides[1]
