# SPDX-License-Identifier: Apache-2.0
"""What `make docs` does to a page: the line with the license goes, so that the heading is the title."""

from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    first, _, rest = markdown.partition("\n")
    return rest if first.startswith("<!-- SPDX") else markdown
