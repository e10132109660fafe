# SPDX-License-Identifier: Apache-2.0
"""What is known of the images of an evaluation."""

import re

import numpy as np

from ppcls_ise.data import ReIDDataset
from ppcls_ise.metrics import Labels

# What a data set adds to a name that occurs in several of its cameras.
_CAMERA = re.compile(r" \(camera [^)]*\)$")


def tracklet_name(dataset: ReIDDataset, number: int) -> str:
    """How ``dataset`` calls the tracklet, or its number."""
    names = dataset.tracklet_names
    return str(number) if names is None or number < 0 else names[number]


def known_of_both(query: ReIDDataset, gallery: ReIDDataset) -> tuple[Labels, Labels]:
    """Identities, cameras and tracklets of both sides.

    Each data set counts its own tracklets; here those of one name and camera have one number.
    """
    order: dict[tuple[int | None, str], int] = {}
    sides = []
    for dataset in (query, gallery):
        tracklets = dataset.tracklet_ids
        if tracklets is not None:
            ids, first, place = np.unique(tracklets, return_index=True, return_inverse=True)
            numbers = []
            for number, row in zip(ids.tolist(), first.tolist(), strict=True):
                camera = None if dataset.camids is None else int(dataset.camids[row])
                key = camera, _CAMERA.sub("", tracklet_name(dataset, number))
                numbers.append(-1 if number < 0 else order.setdefault(key, len(order)))
            tracklets = np.array(numbers, np.int64)[place.reshape(-1)]
        sides.append(Labels(dataset.pids, dataset.camids, tracklets))
    return sides[0], sides[1]
