# SPDX-License-Identifier: Apache-2.0
"""What HTML pages have in common: templates that escape every value, and links to files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ppcls_ise.errors import shown

_TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, values: Mapping[str, Any]) -> str:
    """A file of ``templates`` with every value as text, whatever characters it holds.

    Filters beside jinja2's own: ``shown`` for paths, see `ppcls_ise.errors.shown`.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    return environment.get_template(template).render(values)


def link(path: str) -> str:
    """The address of a file for a page that is opened from disk."""
    return Path(os.path.abspath(path)).as_uri()
