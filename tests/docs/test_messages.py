# SPDX-License-Identifier: Apache-2.0
"""docs/en/troubleshooting.md explains messages that there are."""

import ast
import re

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "en" / "troubleshooting.md").read_text(encoding="utf-8")
OTHERS = {"libgomp.so.1"}  # Paddle's own


def texts_of_the_package() -> str:
    """Every text in the package's code, the constant parts of f-strings included."""
    found = []
    for path in (REPOSITORY / "ppcls_ise").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\0".join(found)


def test_every_message_is_in_the_code():
    tables = PAGE.split("## Without a message")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", tables, flags=re.MULTILINE)
    assert len(messages) > 20
    texts = texts_of_the_package()
    assert [text for text in messages if text not in texts and text not in OTHERS] == []
