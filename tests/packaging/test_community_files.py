# SPDX-License-Identifier: Apache-2.0
"""CITATION.cff and the templates of issues: readable, and true to the package."""

import pytest
import yaml

import ppcls_ise
from tests.conftest import REPOSITORY

TEMPLATES = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ppcls_ise.__version__
    assert citation["license"] == "Apache-2.0"
    needed = {"cff-version", "message", "title", "authors"}
    assert needed <= set(citation) and all(entry["title"] for entry in citation["references"])


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_have_what_github_asks_for(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    kinds = {"checkboxes", "dropdown", "input", "markdown", "textarea"}
    assert all(part["type"] in kinds and part["attributes"] for part in form["body"])


def test_problems_come_with_the_json_of_the_check():
    text = (REPOSITORY / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")
    assert "ppcls-ise check --json check.json" in text
