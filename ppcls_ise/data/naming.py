# SPDX-License-Identifier: Apache-2.0
"""What tells the camera, the tracklet or the identity of an image: its path, or a table."""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from ppcls_ise.data.csv_table import read_table
from ppcls_ise.errors import ConfigError, DataError, shown

THINGS = ("camera", "tracklet", "identity")
_LONG = 1000  # digits: Python refuses to read numbers of several thousand
# The name of a thing by (path below the folder, with forward slashes; path), None = there is none.
Rule = Callable[[str, str], str | None]

# Forms of names that are recognized where all images have them; matched with the path below the
# folder, so that folders can take the place of underscores.
KNOWN_FORMS = {
    "cam3_track0117_frame000042.jpg": re.compile(
        r"(?:(?:.*[/_-])?cam(?:era)?[_-]?(?P<camera>\d+)[/_-])?"
        r"(?:.*[/_-])?track(?:let)?[_-]?(?P<tracklet>\d+)[/_-](?:f(?:rame)?[_-]?)?\d+\.[^./]+",
        re.IGNORECASE | re.ASCII | re.DOTALL,
    ),
    "0001C1T0002F003.jpg (MARS)": re.compile(
        r"(?:.*/)?(?P<tracklet>(?:\d{4}|00-1)C(?P<camera>\d)T\d+)F\d+\.[^./]+",
        re.ASCII | re.DOTALL,
    ),
}


def known_form(inners: Sequence[str]) -> str | None:
    """The key of `KNOWN_FORMS` that all paths below the folder have, or None."""
    for name, pattern in KNOWN_FORMS.items():
        cameras = set()
        for inner in inners:
            if (match := pattern.fullmatch(inner)) is None:
                break
            cameras.add(match["camera"] is None)
        else:
            if len(cameras) == 1:
                return name
    return None


def by_known_form(form: str, thing: str) -> Rule:
    pattern = KNOWN_FORMS[form]

    def rule(inner: str, path: str) -> str | None:
        match = pattern.fullmatch(inner)
        return match[thing] if match else None

    return rule


def by_folder(thing: str) -> Rule:
    """The name of the folder that holds the image.

    Raises (the rule):
        DataError: the image lies in no sub-folder.
    """

    def rule(inner: str, path: str) -> str:
        if "/" not in inner:
            raise DataError(
                f"UnlabeledFolder: {shown(path)} lies in no sub-folder, so "
                f"{thing}_from_folder cannot tell its {thing}; move it, or use {thing}_pattern"
            )
        return inner.split("/")[-2]

    return rule


def by_pattern(thing: str, pattern: str) -> Rule:
    """What the groups of a regular expression hold, with ``/`` between them.

    Raises:
        ConfigError: no regular expression with a group; names the key.
        DataError: (the rule) the path does not have it.
    """
    key = f"{thing}_pattern"
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"UnlabeledFolder: {key} '{pattern}': {error}") from error
    if compiled.groups < 1:
        raise ConfigError(
            f"UnlabeledFolder: {key} '{pattern}' has no group; put the {thing} in "
            f"parentheses, for example '{thing[:3]}(\\d+)'"
        )

    def rule(inner: str, path: str) -> str:
        match = compiled.search(inner)
        found = [group for group in match.groups() if group is not None] if match else []
        if not found:
            raise DataError(
                f"UnlabeledFolder: {key} '{shown(pattern)}' finds no {thing} in "
                f"'{shown(inner)}' ({shown(path)}); change the pattern or move the file"
            )
        return "/".join(found)

    return rule


class Table:
    """A CSV file with the column ``path`` and any of `THINGS`.

    A path is absolute, or below the folder of images. Every image has a line and every line an
    image; a camera or an identity is in all lines or none, a tracklet may be left empty.

    Raises:
        ConfigError: there is no such file.
        DataError: a line or column that cannot be used; names it.
    """

    def __init__(self, file: str) -> None:
        if not os.path.isfile(file):
            raise ConfigError(f"UnlabeledFolder: table: there is no file {shown(file)}")
        self.file = file
        self._lines: dict[str, dict[str, str]] = {}
        for number, cells in read_table(file, needed=("path",), optional=THINGS):
            path = os.path.normpath(cells.pop("path"))
            if path in self._lines:
                raise DataError(f"{shown(file)}: line {number} names {shown(path)} again")
            self._lines[path] = row = {name: text.strip() for name, text in cells.items()}
            for thing in ("camera", "identity"):
                if row.get(thing) == "":
                    raise DataError(f"{shown(file)}: line {number} has no {thing}")
        self.things = [thing for thing in THINGS if thing in row]
        if not self.things:
            raise DataError(
                f"{shown(file)} needs one of the columns {', '.join(THINGS)} beside path"
            )

    def check(self, inners: Sequence[str], paths: Sequence[str], *, others: bool = False) -> None:
        """Make sure that lines and images are the same.

        Args:
            others: whether there may be lines of images that are not among these.

        Raises:
            DataError: names an image without a line, or a line without an image.
        """
        used = set()
        for inner, path in zip(inners, paths, strict=True):
            key = self._key(inner, path)
            if key is None:
                raise DataError(
                    f"{shown(self.file)} has no line for {shown(inner)} ({shown(path)}); its paths "
                    "are those below the folder of images. Add a line, or move the file"
                )
            used.add(key)
        for key in () if others else self._lines:
            if key not in used:
                raise DataError(
                    f"{shown(self.file)}: there is no image {shown(key)} in the folder; take the "
                    "line out, or check Global.image_root (paths are those below it)"
                )

    def rule(self, thing: str) -> Rule:
        def rule(inner: str, path: str) -> str | None:
            key = self._key(inner, path)
            return (self._lines[key][thing] or None) if key is not None else None

        return rule

    def _key(self, inner: str, path: str) -> str | None:
        for key in (os.path.normpath(inner), os.path.abspath(path)):
            if key in self._lines:
                return key
        return None


def numbered(names: Sequence[str | None]) -> tuple[list[int | None], list[str] | None]:
    """Numbers 0, 1, ... of N names in ascending order, and the name of each number.

    By value if all of them are numbers ("2" before "10", "1" and "01" the same), else by
    spelling. If a name is None, all numbers are, and there are no names.
    """
    if None in names:
        return [None] * len(names), None
    numeric = all(name.isdecimal() and len(name) < _LONG for name in names if name is not None)
    values: list[Any] = [int(name) for name in names if name is not None] if numeric else [*names]
    order = {value: number for number, value in enumerate(sorted(set(values)))}
    return [order[value] for value in values], [str(value) for value in order]
