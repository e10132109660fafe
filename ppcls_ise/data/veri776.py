# SPDX-License-Identifier: Apache-2.0
"""VeRi-776."""

from ppcls_ise.data.market1501 import MarketStyleDataset
from ppcls_ise.utils.components import register


@register("dataset")
class UnsupervisedVeRi776(MarketStyleDataset):
    """VeRi-776 (Liu et al., A Deep Learning-Based Approach to Progressive Vehicle
    Re-identification for Urban Surveillance, ECCV 2016): 576 + 200 vehicles, 20 cameras.

    Names begin with ``<identity>_c<camera>`` (``0001_c001_00016450_0.jpg``). The splits
    ``bounding_box_train``, ``query`` and ``bounding_box_test`` are its folders ``image_train``,
    ``image_query`` and ``image_test``. Protocol as in Market-1501: gallery images of the query's
    vehicle and camera do not count. The published list files are not needed.
    """

    known_folders = (
        "veri776/VeRi",
        "veri/VeRi",
        "veri/VeRi776",
        "VeRi",
        "VeRi776",
        "VeRi_with_plate",
        "VeRi-776",
        "veri",
    )
    published_counts = {"bounding_box_train": 37778, "query": 1678, "bounding_box_test": 11579}
    num_cameras = 20
    split_folders = {
        "bounding_box_train": "image_train",
        "query": "image_query",
        "bounding_box_test": "image_test",
    }
