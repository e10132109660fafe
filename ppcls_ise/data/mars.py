# SPDX-License-Identifier: Apache-2.0
"""MARS: tracklets of pedestrians."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from ppcls_ise import compat
from ppcls_ise.data.folder import walk_images
from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.data.market1501 import MarketStyleDataset
from ppcls_ise.data.reid_dataset import TRAINING_SPLIT
from ppcls_ise.data.tracklets import check_thinning, describe, thin
from ppcls_ise.errors import DataError, shown
from ppcls_ise.utils.components import register

logger = compat.logger()

TRAIN, TEST = "bbox_train", "bbox_test"
_NAME = re.compile(r"(?P<tracklet>(?P<pid>\d{4}|00-1)C(?P<camera>\d)T\d+)F\d+\.\w+", re.ASCII)
_NAMES, _TRACKS, _QUERIES = "info/test_name.txt", "info/tracks_test_info.mat", "info/query_IDX.mat"
_JUNK = -1
_LARGEST = 1e9


@register("dataset")
class MARS(MarketStyleDataset):
    """MARS (Zheng et al., MARS: A Video Benchmark for Large-Scale Person Re-identification, ECCV
    2016) and sets of its layout, such as those of ``ppcls-ise synthetic --tracklets``.

    ``bbox_train`` and ``bbox_test`` with a folder per person and names like
    ``0001C1T0002F003.jpg``: identity, camera, tracklet, frame. What is a query is in ``info``: the
    test tracklets are the rows (first frame, last frame, identity, camera; counted from 1) of
    ``tracks_test_info.mat`` over the lines of ``test_name.txt``, and ``query_IDX.mat`` holds the
    rows that are queries.

    The split ``query`` has the frames of those tracklets, ``bounding_box_test`` those of all
    others: images are compared, not tracklets, so figures are not those published for MARS.
    Identity -1 (names begin with 00-1: junk) is dropped everywhere; identity 0 (distractors) is
    kept.

    Args:
        image_root, cls_label_path, transform_ops: see ``MarketStyleDataset``.
        frame_step, max_per_tracklet: fewer frames of every tracklet; see `tracklets.thin`.

    Raises:
        DataError: a folder, list or name that is not as above.
    """

    known_folders = ("MARS", "mars", "MARS-v160809")
    split_folders = {TRAINING_SPLIT: TRAIN, "query": TEST, "bounding_box_test": TEST}

    def __init__(
        self,
        image_root: str,
        cls_label_path: str = TRAINING_SPLIT,
        transform_ops: list[dict[str, Any]] | None = None,
        frame_step: int = 1,
        max_per_tracklet: int | None = None,
    ) -> None:
        check_thinning("MARS", frame_step, max_per_tracklet)
        self.frame_step = frame_step
        self.max_per_tracklet = max_per_tracklet
        super().__init__(image_root, cls_label_path, transform_ops)

    def read_split(self, folder: str) -> list[ImageRecord]:
        if self.cls_label_path == TRAINING_SPLIT:
            paths = list(walk_images(os.path.join(folder, TRAIN)))
        else:
            paths = _test_paths(Path(folder), query=self.cls_label_path == "query")
        records = [self._record_of(path) for path in paths]
        return [record for record in records if record.pid != _JUNK]

    def _record_of(self, path: str) -> ImageRecord:
        match = _NAME.fullmatch(os.path.basename(path))
        if match is None:
            raise DataError(
                f"MARS: the name of {shown(path)} is not like 0001C1T0002F003.jpg (identity, "
                "camera, tracklet, frame); remove the file, or use UnlabeledFolder"
            )
        pid = _JUNK if match["pid"] == "00-1" else int(match["pid"])
        return self.record(path, pid, int(match["camera"]))._replace(tracklet=match["tracklet"])

    def select(self, records: list[ImageRecord]) -> list[ImageRecord]:
        return thin(records, frame_step=self.frame_step, max_per_tracklet=self.max_per_tracklet)

    def log_summary(self) -> None:
        what = describe(self.tracklet_ids, self.camids)
        logger.info("MARS %s: %d images, %s", self.cls_label_path, len(self), what)


def _test_paths(folder: Path, *, query: bool) -> list[str]:
    """Frames of the test tracklets that are queries, or of the others."""
    try:
        names = (folder / _NAMES).read_text(encoding="utf-8", errors="surrogateescape").split()
    except OSError as error:
        raise DataError(f"MARS: cannot read {shown(folder / _NAMES)}: {error.strerror}") from error
    tracks = _matrix(folder / _TRACKS, "track_test_info")
    if tracks.ndim != 2 or tracks.shape[1] != 4:
        raise DataError(
            f"MARS: {shown(folder / _TRACKS)} holds {list(tracks.shape)} numbers instead of rows "
            "of first frame, last frame, identity and camera"
        )
    _check_rows(tracks[:, :2], len(names), folder / _TRACKS, _NAMES)
    rows = _matrix(folder / _QUERIES, "query_IDX")
    _check_rows(rows, len(tracks), folder / _QUERIES, _TRACKS)
    chosen = np.isin(np.arange(1, len(tracks) + 1), rows) == query
    paths = []
    for first, last, pid, camera in tracks[chosen].tolist():
        for name in names[first - 1 : last]:
            match = _NAME.fullmatch(name)
            owner = -1 if match and match["pid"] == "00-1" else int(match["pid"]) if match else None
            if match is None or owner != pid or int(match["camera"]) != camera:
                raise DataError(
                    f"MARS: {shown(folder / _TRACKS)} gives frames {first} to {last} to identity "
                    f"{pid} and camera {camera}, but {shown(name)} is one of them ({_NAMES})"
                )
            paths.append(str(folder / TEST / name[:4] / name))
    return paths


def _check_rows(rows: np.ndarray, count: int, path: Path, what: str) -> None:
    if rows.size and not 1 <= rows.min() <= rows.max() <= count:
        raise DataError(
            f"MARS: {shown(path)} counts from {rows.min()} to {rows.max()}, but {what} has 1 to "
            f"{count}: is it of another data set?"
        )


def _matrix(path: Path, name: str) -> np.ndarray:
    """A matrix of whole numbers from a MATLAB file."""
    try:
        values = np.asarray(loadmat(path, variable_names=[name])[name], dtype=np.float64)
    except KeyError as error:
        raise DataError(f"MARS: {shown(path)} holds no matrix {name}") from error
    except Exception as error:  # there is no list of what a damaged file raises
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"MARS: cannot read {shown(path)}: {reason}") from error
    if (np.abs(values) > _LARGEST).any() or (values != np.rint(values)).any():
        raise DataError(f"MARS: {name} in {shown(path)} holds numbers that are not whole")
    return values.astype(np.int64)
