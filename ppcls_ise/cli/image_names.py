# SPDX-License-Identifier: Apache-2.0
"""Options that tell cameras, tracklets and people by the names of images, or by a table."""

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ppcls_ise.data import naming
from ppcls_ise.errors import ConfigError, DataError, shown


class ImageNames(NamedTuple):
    """Names of the camera and the tracklet of an image, "" where they are not known."""

    camera: str = ""
    tracklet: str = ""


def add_name_arguments(parser: argparse.ArgumentParser, *things: str) -> None:
    """``--camera-pattern`` and the like for ``things`` of `naming.THINGS`, and ``--table``."""
    for thing in things:
        parser.add_argument(
            f"--{thing}-pattern",
            metavar="REGEX",
            help=f"searched in the path below the folder; its groups are the {thing}",
        )
    parser.add_argument(
        "--table", metavar="CSV", help=f"columns path and any of {', '.join(things)}"
    )


def naming_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of these options, as `UnlabeledFolder` takes them."""
    keys = (*(f"{thing}_pattern" for thing in naming.THINGS), "table")
    return {key: value for key in keys if (value := getattr(args, key, None))}


def require_folder(path: str, option: str) -> None:
    """Raise if there is no such folder.

    Raises:
        DataError: names the option.
    """
    if not os.path.isdir(path):
        raise DataError(f"{option}: there is no folder {shown(path)}")


@contextmanager
def as_options() -> Iterator[None]:
    """Errors about a data set of a configuration, in the words of the command line."""
    try:
        yield
    except (ConfigError, DataError) as error:
        text = re.sub(r"\b(camera|tracklet|identity)_pattern\b", r"--\1-pattern", str(error))
        text = re.sub(r"; set Global.image_root .*|, or check Global.image_root", "", text)
        raise type(error)(text.replace("UnlabeledFolder: ", "")) from error


def names_of(args: argparse.Namespace, paths: Sequence[str]) -> list[ImageNames]:
    """Cameras and tracklets of the images that ``--images`` means.

    Without a pattern and a table, names of the forms of `naming.KNOWN_FORMS` tell both. A tracklet
    is named within its camera.

    Raises:
        ConfigError: a pattern without a group, or pattern and table for the same.
        DataError: a path that a pattern is not found in.
    """
    folder = args.images if os.path.isdir(args.images) else None
    inners = [
        (path if folder is None else os.path.relpath(path, folder)).replace(os.sep, "/")
        for path in paths
    ]
    table = naming.Table(args.table) if args.table else None
    form = naming.known_form(inners)
    columns = []
    for thing in ("camera", "tracklet"):
        pattern = getattr(args, f"{thing}_pattern")
        in_table = table is not None and thing in table.things
        if pattern and in_table:
            raise ConfigError(f"--{thing}-pattern and --table both tell the {thing}: leave one out")
        if pattern:
            rule = naming.by_pattern(thing, pattern)
        elif table is not None and in_table:
            rule = table.rule(thing)
        elif form is not None:
            rule = naming.by_known_form(form, thing)
        else:
            columns.append([""] * len(paths))
            continue
        columns.append([rule(*pair) or "" for pair in zip(inners, paths, strict=True)])
    return [
        ImageNames(camera, f"{camera}/{tracklet}" if camera and tracklet else tracklet)
        for camera, tracklet in zip(*columns, strict=True)
    ]
