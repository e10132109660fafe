# SPDX-License-Identifier: Apache-2.0
"""docs/zh_CN says what docs/en says: the same pages, headings, code, tables, links and numbers."""

import re
from collections import Counter

import pytest

from tests.conftest import REPOSITORY

ENGLISH, CHINESE = REPOSITORY / "docs" / "en", REPOSITORY / "docs" / "zh_CN"
PAIRS = {page.name: (page, CHINESE / page.name) for page in sorted(ENGLISH.glob("*.md"))}
PAIRS["README.md"] = (REPOSITORY / "README.md", REPOSITORY / "README_ch.md")

FENCED = re.compile(r"^ *```.*?^ *```$", flags=re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#+) ", flags=re.MULTILINE)
SPAN = re.compile(r"(`+)(.+?)\1", flags=re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Section:
    """A heading with what follows it, as far as no translation may change it."""

    def __init__(self, text: str) -> None:
        self.level = len(text) - len(text.lstrip("#"))
        self.heading = text.partition("\n")[0]
        self.blocks = FENCED.findall(text)
        prose = FENCED.sub("", text)
        self.tables = [_shape(table) for table in re.findall(r"(?:^\|.*\|$\n?)+", prose, re.M)]
        self.links = Counter(_neutral(target) for target in LINK.findall(prose))
        without_links = LINK.sub("]", prose)
        self.code = {" ".join(span.split()) for _, span in SPAN.findall(without_links)}
        self.numbers = Counter(NUMBER.findall(SPAN.sub("", without_links)))


def _shape(table: str) -> list[int]:
    return [len(re.findall(r"(?<!\\)\|", row)) - 1 for row in table.splitlines()]


def _neutral(target: str) -> str:
    """A link without what differs by language: the folder, and anchors made of headings."""
    return re.sub(r"#.*", "#", target).replace("zh_CN/", "en/").replace("README_ch", "README")


def sections(text: str) -> list[Section]:
    # Lines that begin with # in a block of code are no headings.
    marked = FENCED.sub(lambda block: re.sub(r"^#", "\0#", block[0], flags=re.M), text)
    parts = re.split(r"^(?=#+ )", marked, flags=re.MULTILINE)
    return [Section(part.replace("\0", "")) for part in parts if part.startswith("#")]


def differences(english: str, chinese: str) -> list[str]:
    """What the second text lacks or has beyond the first, section by section."""
    ours, theirs = sections(english), sections(chinese)
    if [part.level for part in ours] != [part.level for part in theirs]:
        return [f"headings: {[p.heading for p in ours]} and {[p.heading for p in theirs]}"]
    found = []
    for one, other in zip(ours, theirs, strict=True):
        for what in ("blocks", "tables", "links", "code", "numbers"):
            left, right = getattr(one, what), getattr(other, what)
            if left != right:
                found.append(f"{one.heading}: {what}: {_apart(left, right)}")
    return found


def _apart(left, right) -> str:
    if isinstance(left, list):
        return f"{left} and {right}"
    return f"{left - right} only in English, {right - left} only in Chinese"


def test_every_page_has_its_twin():
    assert {page.name for page in CHINESE.glob("*.md")} == {
        page.name for page in ENGLISH.glob("*.md")
    }
    assert len(PAIRS) > 20


@pytest.mark.parametrize("name", PAIRS)
def test_translation_is_complete(name):
    english, chinese = (path.read_text(encoding="utf-8") for path in PAIRS[name])
    assert differences(english, chinese) == []


# -- the words ----------------------------------------------------------------------------------


def avoided() -> dict[str, str]:
    """Chinese words that the glossary replaces, with the ones it prescribes."""
    text = (CHINESE / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|" + r" ([^|]+) \|" * 4 + "$", text, flags=re.MULTILINE)
    return {word: chinese for _, chinese, _, words in rows[1:] for word in words.split("、")}


def test_one_glossary_throughout():
    words = avoided()
    assert len(words) > 10
    found = []
    for name, (_, path) in PAIRS.items():
        if name != "glossary.md":
            text = FENCED.sub("", path.read_text(encoding="utf-8"))
            found += [(name, word, right) for word, right in words.items() if word in text]
    assert found == []


def test_pages_are_chinese():
    for _, path in PAIRS.values():
        prose = SPAN.sub("", FENCED.sub("", path.read_text(encoding="utf-8")))
        assert len(re.findall(r"[\u4e00-\u9fff]", prose)) > 100, path.name


def lost_bold(text: str) -> list[str]:
    """Bold text whose ** GitHub would show: punctuation inside of it, a character outside."""
    found = []
    for line in FENCED.sub("", text).splitlines():
        parts = line.split("**")
        for before, bold, after in zip(parts[::2], parts[1::2], parts[2::2], strict=False):
            opens = before[-1:].isalnum() and not bold[:1].isalnum()
            closes = after[:1].isalnum() and not bold[-1:].isalnum()
            if opens or closes:
                found.append(bold)
    return found


def test_bold_is_bold():
    assert lost_bold("**完。**后") and lost_bold("前**`x` 后**") and not lost_bold("**完**。后")
    for _, path in PAIRS.values():
        assert lost_bold(path.read_text(encoding="utf-8")) == [], path.name


# -- the comparison itself ----------------------------------------------------------------------

PAGE = """# A

Two `x` in [b](b.md), 0.5.

## B

| a | b |
|---|---|
| 1 | 2 |

```bash
# c
run
```
"""


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("0.5", "0.6", "numbers"),
        ("`x`", "`y`", "code"),
        ("b.md", "c.md", "links"),
        ("## B", "### B", "headings"),
        ("| 1 | 2 |\n", "", "tables"),
        ("| 1 | 2 |", "| 1 2 |", "tables"),
        ("run", "walk", "blocks"),
        ("# c\n", "", "blocks"),
    ],
)
def test_differences_are_seen(old, new, word):
    assert differences(PAGE, PAGE) == []
    changed = differences(PAGE, PAGE.replace(old, new))
    assert changed and any(word in line for line in changed)
