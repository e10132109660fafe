# SPDX-License-Identifier: Apache-2.0
"""Occluded-Duke."""

from ppcls_ise.data.market1501 import MarketStyleDataset
from ppcls_ise.utils.components import register


@register("dataset")
class UnsupervisedOccludedDuke(MarketStyleDataset):
    """Occluded-Duke (Miao et al., Pose-Guided Feature Alignment for Occluded Person
    Re-identification, ICCV 2019): DukeMTMC-reID split anew, all queries occluded, 8 cameras.

    Folders, names and protocol as in DukeMTMC-reID, which its authors have withdrawn; this class
    is for those who hold a copy rightfully.
    """

    known_folders = (
        "occluded_duke/Occluded_Duke",
        "Occluded_Duke",
        "Occluded-DukeMTMC-reID",
        "Occluded-Duke",
        "occluded_duke",
    )
    published_counts = {"bounding_box_train": 15618, "query": 2210, "bounding_box_test": 17661}
    num_cameras = 8
