# SPDX-License-Identifier: Apache-2.0
"""MSMT17 in the three forms in which it is passed around."""

import os
import re

from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.data.market1501 import MarketStyleDataset
from ppcls_ise.errors import DataError, shown
from ppcls_ise.utils.components import register

# Split -> (list files, folders the lists may refer to: V1, V2).
_LISTS = {
    "bounding_box_train": (("list_train.txt", "list_val.txt"), ("train", "mask_train_v2")),
    "query": (("list_query.txt",), ("test", "mask_test_v2")),
    "bounding_box_test": (("list_gallery.txt",), ("test", "mask_test_v2")),
}
_CAMERA_FIELD = re.compile(r"[^_]+_[^_]+_(\d{1,9})_")
_IDENTITY = re.compile(r"\d{1,9}")


@register("dataset")
class UnsupervisedMSMT17(MarketStyleDataset):
    """MSMT17 (Wei et al., Person Transfer GAN, CVPR 2018), 15 cameras.

    Recognized forms, in this order:

    * folders like Market-1501's (``bounding_box_train``, ``query``, ``bounding_box_test``);
    * the official V1: ``list_train.txt`` + ``list_val.txt``, ``list_query.txt`` and
      ``list_gallery.txt`` beside ``train/`` and ``test/``. A line is ``<path> <identity>``; the
      camera is the third field of the base name, ``0000_000_01_0303morning_0008_0.jpg``;
    * V2: the same lists beside ``mask_train_v2/`` and ``mask_test_v2/``.

    A file that is listed but missing stays in the list: in training it is put aside like any
    unreadable image, in evaluation it is an error when it is read.

    Args: see ``MarketStyleDataset``.

    Raises:
        DataError: also for a malformed line, a path that leaves the folder, a file listed twice.
    """

    known_folders = (
        "msmt17/MSMT17_V1",
        "msmt17/MSMT17_V2",
        "MSMT17_V1",
        "MSMT17_V2",
        "msmt17",
        "MSMT17",
    )
    published_counts = {"bounding_box_train": 32621, "query": 11659, "bounding_box_test": 82161}
    num_cameras = 15

    def holds_split(self, folder: str) -> bool:
        lists, _ = _LISTS[self.cls_label_path]
        return super().holds_split(folder) or os.path.isfile(os.path.join(folder, lists[0]))

    def read_split(self, folder: str) -> list[ImageRecord]:
        if super().holds_split(folder):
            return super().read_split(folder)
        lists, image_folders = _LISTS[self.cls_label_path]
        image_folder = next(
            (name for name in image_folders if os.path.isdir(os.path.join(folder, name))), None
        )
        if image_folder is None:
            raise DataError(
                f"{folder} holds {lists[0]} but none of the folders it refers to: "
                f"{', '.join(image_folders)}; unpack the images beside the lists"
            )
        records: dict[str, ImageRecord] = {}
        for name in lists:
            list_file = os.path.join(folder, name)
            for record in self._read_list(list_file, os.path.join(folder, image_folder)):
                if record.path in records:
                    raise DataError(f"{shown(record.path)} is listed twice, again in {list_file}")
                records[record.path] = record
        return list(records.values())

    def _read_list(self, list_file: str, image_folder: str) -> list[ImageRecord]:
        try:
            with open(list_file, encoding="utf-8-sig", errors="surrogateescape") as stream:
                lines = stream.read().split("\n")
        except FileNotFoundError as error:
            raise DataError(f"{list_file} is missing; it is part of MSMT17") from error
        records = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{list_file}, line {number}"
            *rest, identity = line.rsplit(maxsplit=1)
            path = rest[0].strip() if rest else ""
            parts = path.replace("\\", "/").split("/")
            camera = _CAMERA_FIELD.match(parts[-1])
            if path.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                raise DataError(f"{where}: '{shown(path)}' points outside {image_folder}")
            if "__MACOSX" in parts or parts[-1].startswith("."):
                continue
            if camera is None or not _IDENTITY.fullmatch(identity):
                raise DataError(
                    f"{where}: expected '<folder>/<identity>_<number>_<camera>_... <identity>', "
                    f"got '{shown(line.strip())}'"
                )
            full_path = os.path.join(image_folder, *parts)
            records.append(self.record(full_path, int(identity), int(camera[1])))
        return records
