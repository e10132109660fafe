# SPDX-License-Identifier: Apache-2.0
"""What docs/generate.py writes: up to date, complete, and nothing made up in it."""

import importlib.util
import json
import re

import pytest
import yaml

from ppcls_ise.compat import keys
from ppcls_ise.config import check, get_config
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
KEYS_PAGE = (DOCS / "en" / "configuration_keys.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(generate):
    pages = generate.pages()
    assert len(pages) >= 4
    for page, language in pages:
        text = page.read_text(encoding="utf-8")
        assert generate.filled(text, language) == text, f"run python docs/generate.py: {page}"


def test_notebook_is_the_tutorial(generate):
    stored = (DOCS / "tutorial.ipynb").read_text(encoding="utf-8")
    assert stored == generate.notebook(), "run python docs/generate.py"
    cells = json.loads(stored)["cells"]
    page = (DOCS / "en" / "tutorial.md").read_text(encoding="utf-8")
    assert sum(cell["cell_type"] == "code" for cell in cells) == page.count("```bash") == 5


def test_every_component_with_keys_is_there(generate):
    written = set(re.findall(r"<!-- keys: (\w+) -->", KEYS_PAGE))
    tables = {name: generate.key_table(name, "en") for name in generate.described()}
    same = {tables[name] for name in written}
    assert {name for name, table in tables.items() if table not in same} == set()
    assert written <= set(tables)


def test_no_translation_is_left_over(generate):
    texts = yaml.safe_load((DOCS / "zh_CN" / "keys.yaml").read_text(encoding="utf-8"))
    used = set()
    translated = generate.translated
    generate.translated = lambda text, language: (used.add(text), translated(text, language))[1]
    for name in re.findall(r"<!-- keys: (\w+) -->", KEYS_PAGE):
        generate.key_table(name, "zh_CN")
    assert set(texts) - used == set()


def table(section: str) -> dict[str, list[str]]:
    """Key -> its cells, in the first table of a section that is written by hand."""
    text = KEYS_PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \|(.*)\|$", text, flags=re.MULTILINE)
    return {key: [cell.strip() for cell in cells.split(" | ")] for key, cells in rows}


def test_hand_written_tables_have_every_key():
    assert set(table("Global")) == set(check._GLOBAL)
    assert set(table("Arch")) == set(check._ARCH)
    assert set(table("AMP")) == {*keys.AMP, "dtype"}
    loader = {key.partition(".")[2] for key in table("DataLoader") if key.startswith("loader.")}
    assert loader == set(keys.LOADER)


def test_hand_written_defaults_are_those_of_the_check():
    filled = get_config("ISE_synthetic")["Global"]
    plain = (REPOSITORY / "configs" / "ISE_synthetic.yaml").read_text(encoding="utf-8")
    written = yaml.safe_load(plain)["Global"]
    for key in set(filled) - set(written):
        shown = table("Global")[key][1].strip("`")
        assert yaml.safe_load(shown) == filled[key], key


@pytest.mark.parametrize("key", ["output_dir", "device", "epochs"])
def test_required_keys_are_called_so(key):
    assert table("Global")[key][1] == "required"
