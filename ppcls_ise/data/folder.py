# SPDX-License-Identifier: Apache-2.0
"""A folder of crops of which nothing is known but, perhaps, cameras and tracklets."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ppcls_ise import compat
from ppcls_ise.data import naming
from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.data.images import IMAGE_SUFFIXES, is_image_name
from ppcls_ise.data.reid_dataset import ReIDDataset
from ppcls_ise.data.tracklets import check_thinning, describe, thin
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.utils.components import register

logger = compat.logger()

AUTO = "auto"


@register("dataset")
class UnlabeledFolder(ReIDDataset):
    """Training on one's own images: all images below a folder, without identities.

    Sub-folders are searched, also through symbolic links, but no folder is entered twice. Names
    that begin with a dot and ``__MACOSX`` are passed over. ``training`` is always True, and labels
    of items are pseudo labels.

    A pattern is a regular expression that is searched in the path below the folder (with forward
    slashes); its groups are what is looked for.

    Args:
        image_root: the folder.
        cls_label_path: a sub-folder of it, or "" for all.
        transform_ops: see ``ReIDDataset``.
        camera_from_folder, tracklet_from_folder: the name of the folder that holds the image.
        camera_pattern, tracklet_pattern, identity_pattern: a pattern. ``tracklet_pattern: auto``
            takes tracklets (and cameras, unless they are named) from the names if all images have
            names of one of the forms of `naming.KNOWN_FORMS`; None: no tracklets.
        table: CSV file with the column ``path`` and any of ``camera``, ``tracklet``, ``identity``;
            see `naming.Table`.
        frame_step, max_per_tracklet: fewer frames of every tracklet; see `tracklets.thin`.

    Without any of them ``camids``, ``pids`` and ``tracklet_ids`` are None. Cameras and identities
    are numbered 0, 1, ... in ascending order of their names; see `naming.numbered`. Two data sets
    number alike only if the same names occur in both, or after `number_alike`. The same tracklet
    in two cameras is two tracklets. Identities are information for the log (and for an evaluation).

    Attributes:
        camera_names, identity_names: the names by number, or None.

    Raises:
        ConfigError: two ways of naming one thing, or a pattern that is no regular expression with
            a group.
        DataError: no folder, no image, or a file whose camera, tracklet or identity cannot be told.
    """

    shares_table = False  # whether the table may have lines about other folders

    def __init__(
        self,
        image_root: str,
        cls_label_path: str = "",
        transform_ops: list[dict[str, Any]] | None = None,
        camera_from_folder: bool = False,
        camera_pattern: str | None = None,
        tracklet_from_folder: bool = False,
        tracklet_pattern: str | None = AUTO,
        identity_pattern: str | None = None,
        table: str | None = None,
        frame_step: int = 1,
        max_per_tracklet: int | None = None,
    ) -> None:
        check_thinning("UnlabeledFolder", frame_step, max_per_tracklet)
        self.frame_step = frame_step
        self.max_per_tracklet = max_per_tracklet
        self._form: str | None = None
        self._names: tuple[list[str] | None, list[str] | None] = (None, None)
        self._look_for_form = tracklet_pattern == AUTO
        self._table = naming.Table(table) if table else None
        patterns = {
            "camera": camera_pattern,
            "tracklet": None if self._look_for_form else tracklet_pattern,
            "identity": identity_pattern,
        }
        from_folder = {"camera": camera_from_folder, "tracklet": tracklet_from_folder}
        self._rules: dict[str, naming.Rule] = {}
        for thing in naming.THINGS:
            if rule := self._rule(thing, patterns[thing], from_folder.get(thing, False)):
                self._rules[thing] = rule
        super().__init__(image_root, cls_label_path, transform_ops)
        self.camera_names, self.identity_names = self._names  # as they are now
        self.training = True

    def find_records(self) -> list[ImageRecord]:
        folder = self._folder()
        if not os.path.isdir(folder):
            raise DataError(
                f"UnlabeledFolder: {shown(folder)} is not a folder; set Global.image_root or "
                "DataLoader.*.dataset.image_root (and cls_label_path) to the folder of images"
            )
        paths = sorted(walk_images(folder))
        if not paths:
            raise DataError(
                f"UnlabeledFolder: no image ({', '.join(IMAGE_SUFFIXES)}) below {shown(folder)}; "
                "set Global.image_root or DataLoader.*.dataset.image_root to the folder of images"
            )
        names = self.names_of(paths, folder)
        camids, camera_names = naming.numbered(names["camera"])
        pids, identity_names = naming.numbered(names["identity"])
        self._names = camera_names, identity_names
        columns = zip(paths, pids, camids, names["tracklet"], strict=True)
        return [ImageRecord(*column) for column in columns]

    def names_of(self, paths: list[str], folder: str) -> dict[str, list[str | None]]:
        """Camera, tracklet and identity of every path, by name; None where nothing tells it."""
        inners = [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]
        if self._table:
            self._table.check(inners, paths, others=self.shares_table)
        rules = dict(self._rules)
        if self._look_for_form and "tracklet" not in rules:
            self._form = naming.known_form(inners)
            for thing in ("camera", "tracklet") if self._form else ():
                rules.setdefault(thing, naming.by_known_form(self._form or "", thing))
        pairs = list(zip(inners, paths, strict=True))
        return {
            thing: [rules[thing](*pair) if thing in rules else None for pair in pairs]
            for thing in naming.THINGS
        }

    def select(self, records: list[ImageRecord]) -> list[ImageRecord]:
        return thin(records, frame_step=self.frame_step, max_per_tracklet=self.max_per_tracklet)

    def camera_name(self, camid: int) -> str:
        names = self._names[0]
        return str(camid) if names is None else names[camid]

    def log_summary(self) -> None:
        what = describe(self.tracklet_ids, self.camids, self.camera_name)
        if (identities := self._names[1]) is not None:
            what += f"; {len(identities)} identities (information only)"
        logger.info("UnlabeledFolder %s: %d images, %s", shown(self._folder()), len(self), what)
        if self._form:
            logger.info(
                "UnlabeledFolder: names like %s tell tracklets%s (tracklet_pattern: auto)",
                self._form,
                "" if self.camids is None else " and cameras",
            )

    def _folder(self) -> str:
        return os.path.join(self.image_root, self.cls_label_path or "").rstrip(os.sep) or os.sep

    def _rule(self, thing: str, pattern: str | None, from_folder: bool) -> naming.Rule | None:
        in_table = self._table is not None and thing in self._table.things
        ways = {f"{thing}_from_folder": from_folder, f"{thing}_pattern": pattern, "table": in_table}
        named = [key for key, value in ways.items() if value]
        if len(named) > 1:
            raise ConfigError(
                f"UnlabeledFolder: {' and '.join(named)} exclude each other, as each tells the "
                f"{thing}; remove one of them"
            )
        if from_folder:
            return naming.by_folder(thing)
        if pattern:
            return naming.by_pattern(thing, pattern)
        return self._table.rule(thing) if self._table and in_table else None


def number_alike(first: UnlabeledFolder, second: UnlabeledFolder) -> None:
    """Give cameras and identities of the same name the same number in both, as for query and
    gallery; what only one of the two knows stays as it is."""
    for numbers, names in (("camids", "camera_names"), ("pids", "identity_names")):
        spelled = []
        for dataset in (first, second):
            known, column = getattr(dataset, names), getattr(dataset, numbers)
            if known is not None:
                # A side of numbers alone has no leading zeros, one with other names does.
                plain = [name.lstrip("0") or "0" if name.isdecimal() else name for name in known]
                spelled.append([plain[number] for number in column])
        if len(spelled) < 2:
            continue
        together, all_names = naming.numbered([*spelled[0], *spelled[1]])
        setattr(first, numbers, np.array(together[: len(spelled[0])], dtype=np.int64))
        setattr(second, numbers, np.array(together[len(spelled[0]) :], dtype=np.int64))
        for dataset in (first, second):
            setattr(dataset, names, all_names)


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
