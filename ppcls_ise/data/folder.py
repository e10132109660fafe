# SPDX-License-Identifier: Apache-2.0
"""A folder of crops of which nothing is known but, perhaps, the cameras."""

import os
import re
from collections.abc import Iterator
from typing import Any

from ppcls_ise import compat
from ppcls_ise.data.images import IMAGE_SUFFIXES, is_image_name
from ppcls_ise.data.reid_dataset import ImageRecord, ReIDDataset
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.utils.components import register

logger = compat.logger()


@register("dataset")
class UnlabeledFolder(ReIDDataset):
    """Training on one's own images: all images below a folder, without identities.

    Sub-folders are searched, also through symbolic links, but no folder is entered twice. Names
    that begin with a dot and ``__MACOSX`` are passed over. ``pids`` is always None and
    ``training`` always True.

    Args:
        image_root: the folder.
        cls_label_path: a sub-folder of it, or "" for all.
        transform_ops: see ``ReIDDataset``.
        camera_from_folder: the camera is the name of the folder that holds the image.
        camera_pattern: a regular expression; it is searched in the path below the folder
            (with forward slashes) and its first group is the camera.

    Without either, ``camids`` is None. The names found are numbered 0, 1, ... in ascending order:
    by value if all of them are numbers ("2" before "10", "1" and "01" the same), else by spelling.
    Two data sets number alike only if the same names occur in both.

    Raises:
        ConfigError: both ways of naming cameras at once, or a pattern that is no regular
            expression with a group.
        DataError: no folder, no image, or a file whose camera cannot be told.
    """

    def __init__(
        self,
        image_root: str,
        cls_label_path: str = "",
        transform_ops: list[dict[str, Any]] | None = None,
        camera_from_folder: bool = False,
        camera_pattern: str | None = None,
    ) -> None:
        if camera_from_folder and camera_pattern:
            raise ConfigError(
                "UnlabeledFolder: camera_from_folder and camera_pattern exclude each other; "
                "remove one of them"
            )
        self.camera_from_folder = camera_from_folder
        self._pattern = _compile(camera_pattern) if camera_pattern else None
        super().__init__(image_root, cls_label_path, transform_ops)
        self.training = True

    def find_records(self) -> list[ImageRecord]:
        folder = os.path.join(self.image_root, self.cls_label_path or "").rstrip(os.sep) or os.sep
        if not os.path.isdir(folder):
            raise DataError(
                f"UnlabeledFolder: {shown(folder)} is not a folder; set Global.image_root or "
                "DataLoader.*.dataset.image_root (and cls_label_path) to the folder of images"
            )
        paths = sorted(walk_images(folder))
        if not paths:
            raise DataError(
                f"UnlabeledFolder: no image ({', '.join(IMAGE_SUFFIXES)}) below {shown(folder)}; "
                "set "
                "Global.image_root or DataLoader.*.dataset.image_root to the folder of images"
            )
        cameras = [self._camera_name(path, folder) for path in paths]
        numbers = _number(cameras)
        return [ImageRecord(path, None, camid) for path, camid in zip(paths, numbers, strict=True)]

    def log_summary(self) -> None:
        folder = os.path.join(self.image_root, self.cls_label_path or "").rstrip(os.sep)
        cameras = "no cameras" if self.camids is None else f"{len(set(self.camids))} cameras"
        logger.info("UnlabeledFolder %s: %d images, %s", shown(folder), len(self), cameras)

    def _camera_name(self, path: str, folder: str) -> str | None:
        inner = os.path.relpath(path, folder).replace(os.sep, "/")
        if self.camera_from_folder:
            if "/" not in inner:
                raise DataError(
                    f"UnlabeledFolder: {shown(path)} lies in no sub-folder, so "
                    "camera_from_folder cannot tell its camera; move it, or use camera_pattern"
                )
            return inner.split("/")[-2]
        if self._pattern is None:
            return None
        match = self._pattern.search(inner)
        if match is None or match[1] is None:
            raise DataError(
                f"UnlabeledFolder: camera_pattern '{self._pattern.pattern}' finds no camera in "
                f"'{shown(inner)}' ({shown(path)}); change the pattern or move the file"
            )
        return match[1]


def _compile(pattern: str) -> re.Pattern:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"UnlabeledFolder: camera_pattern '{pattern}': {error}") from error
    if compiled.groups < 1:
        raise ConfigError(
            f"UnlabeledFolder: camera_pattern '{pattern}' has no group; put the camera in "
            "parentheses, for example 'cam(\\d+)'"
        )
    return compiled


def _refuse(error: OSError) -> None:
    # os.walk would pass over a folder that cannot be listed, and the images in it would be missed.
    raise DataError(f"cannot list {shown(error.filename)}: {error.strerror}") from error


def walk_images(folder: str) -> Iterator[str]:
    """Paths of all images below ``folder``, in any order; see `UnlabeledFolder`.

    Raises:
        DataError: a sub-folder cannot be listed.
    """
    visited = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        kept = []
        for name in sorted(folders):
            target = os.path.realpath(os.path.join(parent, name))
            if not name.startswith(".") and name != "__MACOSX" and target not in visited:
                visited.add(target)
                kept.append(name)
        folders[:] = kept
        yield from (os.path.join(parent, name) for name in names if is_image_name(name))


def _number(names: list[str | None]) -> list[int | None]:
    known = [name for name in names if name is not None]
    if len(known) < len(names):
        return [None] * len(names)
    numeric = all(name.isdecimal() for name in known)
    values: list[Any] = [int(name) for name in known] if numeric else list(known)
    order = {value: number for number, value in enumerate(sorted(set(values)))}
    return [order[value] for value in values]
