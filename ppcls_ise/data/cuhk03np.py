# SPDX-License-Identifier: Apache-2.0
"""CUHK03 in its new protocol."""

from ppcls_ise.data.market1501 import MarketStyleDataset
from ppcls_ise.utils.components import register


class _CUHK03NP(MarketStyleDataset):
    """767 + 700 identities, 2 cameras; folders, names (``0003_c1_21.png``) and protocol as in
    Market-1501."""

    num_cameras = 2


@register("dataset")
class UnsupervisedCUHK03NP(_CUHK03NP):
    """CUHK03-NP, crops of a detector (Zhong et al., Re-ranking Person Re-identification with
    k-reciprocal Encoding, CVPR 2017; images of Li et al., DeepReID, CVPR 2014)."""

    known_folders = ("CUHK03-NP/detected", "cuhk03-np/detected", "cuhk03np/detected", "detected")
    published_counts = {"bounding_box_train": 7365, "query": 1400, "bounding_box_test": 5332}


@register("dataset")
class UnsupervisedCUHK03NPLabeled(_CUHK03NP):
    """CUHK03-NP, crops drawn by hand; see `UnsupervisedCUHK03NP`."""

    known_folders = ("CUHK03-NP/labeled", "cuhk03-np/labeled", "cuhk03np/labeled", "labeled")
    published_counts = {"bounding_box_train": 7368, "query": 1400, "bounding_box_test": 5328}
