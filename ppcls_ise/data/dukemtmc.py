# SPDX-License-Identifier: Apache-2.0
"""DukeMTMC-reID."""

from ppcls_ise.data.market1501 import MarketStyleDataset
from ppcls_ise.utils.components import register


@register("dataset")
class UnsupervisedDukeMTMC(MarketStyleDataset):
    """DukeMTMC-reID (Ristani et al., ECCV workshops 2016; Zheng et al., ICCV 2017).

    The authors have withdrawn the data set; this class is for those who hold a copy rightfully.
    """

    known_folders = (
        "dukemtmcreid/DukeMTMC-reID",
        "dukemtmc/DukeMTMC-reID",
        "DukeMTMC-reID",
        "dukemtmcreid",
        "dukemtmc-reid",
    )
    published_counts = {"bounding_box_train": 16522, "query": 2228, "bounding_box_test": 17661}
    num_cameras = 8
