# SPDX-License-Identifier: Apache-2.0
"""Options that tell cameras, tracklets and people by the names of images, or by a table."""

import argparse
import os
from collections.abc import Sequence
from typing import NamedTuple

from ppcls_ise.data import naming
from ppcls_ise.errors import ConfigError


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
