# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/en/api.md, one after the other, as they stand."""

import re

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "en" / "api.md"


def test_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
