# SPDX-License-Identifier: Apache-2.0
"""What HTML pages have in common: templates that escape every value, and images inside of them."""

import base64
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from ppcls_ise.data.images import ImageReadError, read_image
from ppcls_ise.errors import shown

_QUALITY = 80


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this folder with every value as text, whatever characters it holds.

    Filters beside jinja2's own: ``shown`` for paths, see `ppcls_ise.errors.shown`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template(template).render(values)


def thumbnail(path: str, side: int) -> tuple[str, str]:
    """The image as a data URI, reduced to at most ``side`` pixels in height and width, and ""; or
    "" and the reason why it cannot be read."""
    try:
        image = Image.fromarray(read_image(path))
    except ImageReadError as error:
        return "", str(error)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii"), ""


def link(path: str) -> str:
    """The address of a file for a page that is opened from disk."""
    return Path(os.path.abspath(path)).as_uri()
