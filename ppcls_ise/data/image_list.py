# SPDX-License-Identifier: Apache-2.0
"""The images that a command-line argument means."""

import os
from pathlib import Path

from ppcls_ise.data.folder import walk_images
from ppcls_ise.data.images import IMAGE_SUFFIXES, is_image_name
from ppcls_ise.errors import DataError, shown


def list_images(source: str | Path) -> list[str]:
    """Different paths, ascending.

    Args:
        source: a folder (searched with its sub-folders), an image, or a text file with one path
            per line (relative ones from the current folder).

    Raises:
        DataError: there is no such thing, or no image in it.
    """
    source = os.fspath(source)
    if os.path.isdir(source):
        paths = list(walk_images(source))
        rule = f"no image ({', '.join(IMAGE_SUFFIXES)}) below {shown(source)}"
    elif not os.path.isfile(source):
        raise DataError(f"there is no folder, image or list {shown(source)}")
    elif is_image_name(os.path.basename(source)):
        return [source]
    else:
        # utf-8-sig: some editors begin a file with a byte-order mark, which is no part of a path.
        text = Path(source).read_text(encoding="utf-8-sig", errors="surrogateescape")
        if "\0" in text:
            raise DataError(
                f"{shown(source)} is neither an image by its name ({', '.join(IMAGE_SUFFIXES)}) "
                "nor a "
                "text file with one path per line"
            )
        # Not splitlines: names may hold what else Unicode calls a line break.
        paths = [line for line in text.split("\n") if line.strip()]
        rule = f"no path in the list {shown(source)}"
    if not paths:
        raise DataError(f"{rule}: give a folder of images, an image, or a list of paths")
    return sorted(set(paths))
