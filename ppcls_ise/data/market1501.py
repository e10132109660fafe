# SPDX-License-Identifier: Apache-2.0
"""Market-1501, and the folder form that other data sets share with it."""

import os
import re

from ppcls_ise import compat
from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.data.images import is_image_name
from ppcls_ise.data.reid_dataset import TRAINING_SPLIT, ReIDDataset
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.utils.components import register

logger = compat.logger()

SPLITS = (TRAINING_SPLIT, "query", "bounding_box_test")
_PERSON_AND_CAMERA = re.compile(r"(-?\d{1,9})_c(\d{1,9})(?!\d)")


def person_and_camera(name: str) -> tuple[int, int] | None:
    """Identity and camera that a base name begins with (``0002_c1s1_*``), or None."""
    match = _PERSON_AND_CAMERA.match(name)
    return None if match is None else (int(match[1]), int(match[2]))


@register("dataset")
class MarketStyleDataset(ReIDDataset):
    """Any data set in the folder form of Market-1501, usable by this name for one's own.

    One folder of crops per split, identity and camera in the file name: ``0002_c1s1_*.jpg``.

    Only the base name is parsed, so a folder called ``run_7_c2`` does no harm. Identity -1 (junk)
    is dropped everywhere; identity 0 (background) is kept: in the gallery it is a distractor.
    Junk of macOS (``._*``) is passed over, sub-folders are not searched.

    Args: see ``ReIDDataset``. ``image_root`` is the data set's own folder or one above it (see
        ``known_folders``); ``cls_label_path`` is one of ``SPLITS``.

    Raises:
        ConfigError: no such split.
        DataError: the folder was not found or is empty, or a name does not follow the rule.
    """

    known_folders: tuple[str, ...] = ()
    published_counts: dict[str, int] = {}  # empty: nothing to compare with
    num_cameras: int | None = None
    split_folders: dict[str, str] = {}  # split -> its folder, where that has another name

    def find_records(self) -> list[ImageRecord]:
        if self.cls_label_path not in SPLITS:
            raise ConfigError(
                f"{type(self).__name__} has no split '{self.cls_label_path}'; set "
                f"dataset.cls_label_path to one of {', '.join(SPLITS)}"
            )
        records = self.read_split(self.locate())
        if not records:
            raise DataError(
                f"{type(self).__name__}: no usable image in split {self.cls_label_path} of "
                f"{self.locate()}; check that copy, or point Global.image_root to another one"
            )
        return records

    def locate(self) -> str:
        """The folder of the data set: the first of the known places that holds the split.

        Raises:
            DataError: none does; lists the places and the keys to change.
        """
        places = [os.path.join(self.image_root, name) for name in ("", *self.known_folders)]
        for place in places:
            if self.holds_split(place):
                return place.rstrip(os.sep) or os.sep
        raise DataError(
            f"{type(self).__name__}: found no '{os.path.basename(self._split_folder(''))}' in "
            + ", ".join(places)
            + "; set Global.image_root or DataLoader.*.dataset.image_root to the folder that "
            "holds the data set"
        )

    def holds_split(self, folder: str) -> bool:
        """Whether ``folder`` is this data set's own folder."""
        return os.path.isdir(self._split_folder(folder))

    def read_split(self, folder: str) -> list[ImageRecord]:
        """List the images of the split in the data set's own folder."""
        folder = self._split_folder(folder)
        records = []
        for name in filter(is_image_name, os.listdir(folder)):
            path = os.path.join(folder, name)
            found = person_and_camera(name)
            if found is None:
                raise DataError(
                    f"{type(self).__name__}: the name of {shown(path)} does not begin "
                    "with <identity>_c<camera>, numbers of up to 9 digits; rename or remove the "
                    "file, or use UnlabeledFolder"
                )
            if found[0] != -1:
                records.append(self.record(path, *found))
        return records

    def _split_folder(self, folder: str) -> str:
        name = self.split_folders.get(self.cls_label_path, self.cls_label_path)
        return os.path.join(folder, name)

    def record(self, path: str, pid: int, camera: int) -> ImageRecord:
        """Check the 1-based camera of a name and make it 0-based."""
        if camera < 1 or camera > (self.num_cameras or camera):
            raise DataError(
                f"{type(self).__name__}: {shown(path)} names camera {camera}, but the data set has "
                f"cameras 1 to {self.num_cameras or '…'}; check dataset.name and dataset.image_root"
            )
        return ImageRecord(path, pid, camera - 1)

    def log_summary(self) -> None:
        name, split, count = type(self).__name__, self.cls_label_path, len(self)
        published = self.published_counts.get(split)
        logger.info("%s %s: %d images", name, split, count)
        if published is not None and count != published:
            logger.warning(
                "%s %s has %d images, the published data set %d: results cannot be compared "
                "with published ones",
                name,
                split,
                count,
                published,
            )


@register("dataset")
class UnsupervisedMarket1501(MarketStyleDataset):
    """Market-1501 (Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015)."""

    known_folders = (
        "market1501/Market-1501-v15.09.15",
        "Market-1501-v15.09.15",
        "Market-1501",
        "market1501",
        "Market1501",
    )
    published_counts = {"bounding_box_train": 12936, "query": 3368, "bounding_box_test": 15913}
    num_cameras = 6
