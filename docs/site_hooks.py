# SPDX-License-Identifier: Apache-2.0
"""What ``make docs`` changes in a page."""

import re
from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The line with the license goes, so that the heading is the title of the page, and a link
    that is called like its file, as on GitHub, is called like its page."""
    first, _, rest = markdown.partition("\n")
    text = rest if first.startswith("<!-- SPDX") else markdown
    folder = Path(page.file.abs_src_path).parent

    def titled(link: re.Match[str]) -> str:
        target = folder / link[1]
        if not target.is_file():
            return link[0]  # mkdocs says that it leads nowhere
        heading = re.search(r"^# (.*)$", target.read_text("utf-8"), flags=re.MULTILINE)
        return f"[{heading[1]}]({link[1]})" if heading else link[0]

    return re.sub(r"\[(?:\w+\.md)\]\(((?:\.\./)?\w+\.md)\)", titled, text)
