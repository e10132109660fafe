# SPDX-License-Identifier: Apache-2.0
"""PersonX."""

from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.data.market1501 import MarketStyleDataset
from ppcls_ise.errors import DataError, shown
from ppcls_ise.utils.components import register

# Its six cameras carry these numbers in the copy that is passed around, 1 to 6 in others.
_CAMERAS = frozenset({1, 2, 3, 4, 5, 6, 8, 10, 11, 12})


@register("dataset")
class UnsupervisedPersonX(MarketStyleDataset):
    """PersonX (Sun & Zheng, Dissecting Person Re-identification from the Viewpoint of Viewpoint,
    CVPR 2019): rendered people before real backgrounds, 410 + 856 identities, 6 cameras.

    Folders and names as in Market-1501; its protocol too. A camera is the number in the name.
    """

    known_folders = ("personx/PersonX", "PersonX", "personx", "personX", "PersonX_v1")
    published_counts = {"bounding_box_train": 9840, "query": 5136, "bounding_box_test": 30816}

    def record(self, path: str, pid: int, camera: int) -> ImageRecord:
        if camera not in _CAMERAS:
            raise DataError(
                f"{type(self).__name__}: {shown(path)} names camera {camera}, but the data set has "
                f"cameras 1 to 6, or 3, 4, 8, 10, 11 and 12; check dataset.name and "
                "dataset.image_root"
            )
        return ImageRecord(path, pid, camera - 1)
