# SPDX-License-Identifier: Apache-2.0
"""What all re-identification data sets of this package share."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle

from ppcls_ise import compat
from ppcls_ise.data.file_stamps import FileStamps
from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.data.images import ImageReadError, check_image_header, read_image
from ppcls_ise.data.on_device import OnDevice
from ppcls_ise.data.tracklets import in_order, number_tracklets
from ppcls_ise.data.transforms import seeded_generators
from ppcls_ise.errors import ConfigError, DataError, shown

logger = compat.logger()

_SHOWN = 5
TRAINING_SPLIT = "bounding_box_train"


class ReIDDataset(paddle.io.Dataset):
    """An ordered list of person crops, for training, clustering, query and gallery alike.

    Subclasses implement ``find_records``. The list is sorted by full path (frames of a tracklet by
    time, see `tracklets.in_order`), so it depends on nothing but the files. Ground-truth identities
    never reach training: in a training split the label of an item is its pseudo label, and
    ``pids`` is information for the log only.

    Args:
        image_root: folder that holds the data set.
        cls_label_path: which split to use; the name is PaddleClas's.
        transform_ops: PaddleClas's list of operators. They get uint8 [H, W, 3] in RGB and must
            give [H, W, 3] again: the data set itself moves the channels to the front.

    Attributes:
        images: N full paths, in that order.
        pids: int64 [N] or None.
        camids: int64 [N], 0-based, or None if cameras are unknown.
        tracklet_ids: int64 [N], -1 = in no tracklet, or None if no image is in one. A tracklet is
            in one camera: the same name in two of them means two tracklets.
        tracklet_names: the name of each number, or None.
        pseudo_labels: int64 [N], -1 = not in a cluster; all -1 until somebody assigns it.
        training: whether labels are pseudo labels.
        seed, epoch: keys of the augmentation, set by ``IdentitySampler``.
        stamps: sizes and times of the files as they were when the data set was made.

    Raises:
        ConfigError, DataError: nothing usable was found; the message says what to change.
    """

    def __init__(
        self,
        image_root: str,
        cls_label_path: str = TRAINING_SPLIT,
        transform_ops: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        if not image_root:
            raise ConfigError(
                f"{type(self).__name__} needs a folder; set Global.image_root or "
                "DataLoader.*.dataset.image_root"
            )
        self.image_root = image_root
        self.cls_label_path = cls_label_path
        self.training = cls_label_path == TRAINING_SPLIT
        self.seed = 0
        self.epoch = 0
        self._uint8 = False
        self.on_device: OnDevice | None = None
        self._labels_hidden = False
        found = in_order(self.find_records())
        records = self.select(found)
        self._left_out = {r.path for r in found} - {r.path for r in records}
        self.images = [record.path for record in records]
        self.pids = _column([record.pid for record in records])
        self.camids = _column([record.camid for record in records])
        self.tracklet_ids, self.tracklet_names, shared = number_tracklets(records, self.camera_name)
        self._pseudo_labels: np.ndarray = np.full(len(self.images), -1, dtype=np.int64)
        self.stamps = FileStamps(self.images)
        self.log_summary()
        if self._left_out:
            logger.info(
                "%s: %d of %d images are left out (frame_step, max_per_tracklet)",
                type(self).__name__,
                len(self._left_out),
                len(found),
            )
        if shared:
            logger.info(
                "%s: %d names of tracklets occur in several cameras: each camera has its own",
                type(self).__name__,
                shared,
            )
        self._set_transforms(transform_ops)

    def find_records(self) -> list[ImageRecord]:
        """List the images of the split, in any order."""
        raise NotImplementedError

    def select(self, records: list[ImageRecord]) -> list[ImageRecord]:
        """Those of the images found, in order, that are used."""
        return records

    def camera_name(self, camid: int) -> str:
        """What camera ``camid`` is called in messages."""
        return str(camid)

    def log_summary(self) -> None:
        """Log what was found."""

    @property
    def pseudo_labels(self) -> np.ndarray:
        return self._pseudo_labels

    @pseudo_labels.setter
    def pseudo_labels(self, labels: np.ndarray) -> None:
        labels = np.asarray(labels)
        if labels.shape != (len(self),) or labels.dtype.kind not in "iu":
            raise DataError(
                f"pseudo labels must be {len(self)} integers, one per image, got "
                f"{labels.dtype} of shape {labels.shape}"
            )
        self._pseudo_labels = labels.astype(np.int64)

    def view(self, transform_ops: list[dict[str, Any]] | None) -> "ReIDDataset":
        """The same list of images with other transforms; the label of its items is always -1."""
        other = copy.copy(self)
        other._set_transforms(transform_ops)
        other._labels_hidden = True
        return other

    def normalize_on_device(self) -> None:
        """Deliver uint8 images, here and in views made later; ``on_device`` makes of a batch of
        them what ``transform_ops`` say. Training labels end with the rectangle to be erased.

        Raises:
            ConfigError: ``transform_ops`` do not end with what a device does; see `OnDevice`.
        """
        self._uint8 = True
        self._set_transforms(self._transform_ops)

    def read_error(self, index: int) -> ImageReadError | None:
        """Why the image cannot be read, or None if it can; reads the file again.

        Loader workers are processes of their own, so what they found is not remembered here.
        """
        try:
            read_image(self.images[index])
        except ImageReadError as error:
            return error
        return None

    def require_openable(self) -> None:
        """Open every file up to its header; about 0.1 ms each.

        Raises:
            ImageReadError: for the first that is missing, empty or no image. A damage further
                inside shows only when the image is read.
        """
        for path in self.images:
            check_image_header(path)

    def require_unchanged(self) -> None:
        """Make sure that the files are those that were there when the data set was made.

        New files are left out, with a warning. Cost: one ``stat`` per image and a listing.

        Raises:
            DataError: names files that were removed, changed or added in a place of the list.
        """
        if changes := self.stamps.changes():
            shown_changes = "; ".join(f"{shown(path)} {word}" for path, word in changes[:_SHOWN])
            raise DataError(
                f"{len(changes)} of {len(self)} images are not what they were when the run began: "
                f"{shown_changes}{'; …' if len(changes) > _SHOWN else ''}. Keep them as they "
                "are during a run, and start again or resume (Global.checkpoints)"
            )
        try:
            found = {record.path for record in self.find_records()}
        except DataError as error:  # of a file that is not in the list
            logger.warning(
                "something was added after the run began that the next start will not accept; "
                "this run goes on without it: %s",
                error,
            )
            return
        new = sorted(found - set(self.images) - self._left_out)
        if new:
            logger.warning(
                "%d images were added after the run began and are left out until the next start: "
                "%s%s",
                len(new),
                "; ".join(shown(path) for path in new[:_SHOWN]),
                "; …" if len(new) > _SHOWN else "",
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.int64]:
        """One image.

        Args:
            item: an index, or ``(index, draw)`` from ``IdentitySampler``. With a draw number the
                transforms run with generators seeded by (seed, epoch, draw), so that the result
                depends neither on the worker nor on the rank; without one nothing is seeded.

        Returns:
            Image float32 [3, H, W] (uint8 after `normalize_on_device`); int64 [3] = (label, index,
            readable), and then perhaps a rectangle; camera, or -1 if unknown. An unreadable image
            is never replaced by another one: asked for by index it
            is all zeros with readable = 0.

        Raises:
            ImageReadError: an unreadable image, if a draw number was given.
        """
        index, draw = item if isinstance(item, tuple) else (item, None)
        readable = 1
        rectangle = np.empty(0, np.int64)
        try:
            pixels = read_image(self.images[index])
            if draw is None:
                image = self._transform(pixels)
                rectangle = self._rectangle(image)
            else:
                with seeded_generators(self.seed, self.epoch, draw):
                    image = self._transform(pixels)
                    rectangle = self._rectangle(image)
        except ImageReadError:
            if draw is not None:
                raise
            readable = 0
            image = self.blank()
            rectangle = np.zeros_like(self._rectangle(image))
        camera = np.int64(-1 if self.camids is None else self.camids[index])
        label = np.array([self._label(index), index, readable], dtype=np.int64)
        return image, np.concatenate([label, rectangle]), camera

    def _label(self, index: int) -> int:
        labels = self._pseudo_labels if self.training else self.pids
        return -1 if labels is None or self._labels_hidden else int(labels[index])

    def _set_transforms(self, transform_ops: list[dict[str, Any]] | None) -> None:
        self._transform_ops = transform_ops
        self._ops: Sequence[Any] = compat.build_transforms(transform_ops) if transform_ops else []
        self.on_device = OnDevice(self._ops) if self._uint8 else None
        self._ops = self.on_device.host_ops if self.on_device else self._ops

    def _transform(self, pixels: np.ndarray) -> np.ndarray:
        for op in self._ops:
            pixels = op(pixels)
        pixels = np.asarray(pixels)
        if pixels.ndim != 3 or pixels.shape[-1] != 3:
            raise DataError(
                f"transform_ops must give [H, W, 3], got {list(pixels.shape)}; leave out "
                "ToCHWImage and ToTensor, the data set moves the channels itself"
            )
        if self._uint8 and pixels.dtype != np.uint8:
            raise ConfigError(
                "Global.normalize_on_device needs transform_ops that give uint8 before "
                f"NormalizeImage, got {pixels.dtype}"
            )
        dtype = np.uint8 if self._uint8 else np.float32
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=dtype)

    def _rectangle(self, image: np.ndarray) -> np.ndarray:
        """What the device is to erase of ``image`` [3, H, W]; empty if it erases nothing ever."""
        if self.on_device is None or not self.on_device.erases:
            return np.empty(0, np.int64)
        return self.on_device.rectangle(*image.shape[1:])

    def blank(self) -> np.ndarray:
        """Zeros of the shape and type of an image of this data set; opens no file."""
        # The shape that the transforms give is that of a transformed black image.
        with seeded_generators(0):
            return np.zeros_like(self._transform(np.zeros((256, 128, 3), dtype=np.uint8)))


def _column(values: list[int | None]) -> np.ndarray | None:
    return None if None in values else np.array(values, dtype=np.int64)
