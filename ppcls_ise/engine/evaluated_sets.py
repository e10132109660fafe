# SPDX-License-Identifier: Apache-2.0
"""What is known of the images of an evaluation."""

import numpy as np

from ppcls_ise.data import ReIDDataset
from ppcls_ise.metrics import Labels


def known_of_both(query: ReIDDataset, gallery: ReIDDataset) -> tuple[Labels, Labels]:
    """Identities, cameras and tracklets of both sides; tracklets are numbered by their names, as
    each data set counts its own."""
    order: dict[str, int] = {}
    sides = []
    for dataset in (query, gallery):
        tracklets = dataset.tracklet_ids
        if tracklets is not None:
            numbers = [order.setdefault(name, len(order)) for name in dataset.tracklet_names]
            tracklets = np.append(numbers, -1)[tracklets]
        sides.append(Labels(dataset.pids, dataset.camids, tracklets))
    return sides[0], sides[1]
