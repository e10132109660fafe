# SPDX-License-Identifier: Apache-2.0
"""What import-linter cannot say of the package: its root, and who knows PaddleClas."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppcls_ise.compat import keys
from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "ppcls_ise"
OUTSIDE_COMPAT = sorted(
    path for path in PACKAGE.rglob("*.py") if PACKAGE / "compat" not in path.parents
)
KEYS = {name: set(value) for name, value in vars(keys).items() if name.isupper()}


def test_four_modules_at_the_root():
    names = {path.stem for path in PACKAGE.glob("*.py")}
    assert names == {"__init__", "__main__", "errors", "registry"}


def texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def written_lists(tree: ast.AST) -> Iterator[set[str]]:
    """Texts that stand together: in a list, a tuple, a set, as keys, or as ``"…".split()``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            entries = node.elts
        elif isinstance(node, ast.Dict):
            entries = [key for key in node.keys if key is not None]
        else:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield set(node.value.split())
            continue
        yield {entry.value for entry in entries if isinstance(entry, ast.Constant)}


def problems(source: str) -> list[str]:
    """Modules of PaddleClas, and lists of more than half of the keys of one of its sections."""
    tree = ast.parse(source)
    found = [name for name in imported(tree) if name.split(".")[0] in ("ppcls", "paddleclas")]
    found += [text for text in texts(tree) if text == "ppcls" or text.startswith("ppcls.")]
    for written in written_lists(tree):
        found += [name for name, known in KEYS.items() if 2 * len(written & known) > len(known)]
    return found


@pytest.mark.parametrize(
    "path", OUTSIDE_COMPAT, ids=lambda path: str(path.relative_to(PACKAGE).with_suffix(""))
)
def test_compat_alone_knows_paddleclas(path: Path):
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from ppcls.utils import logger",
        "import paddleclas",
        'load("ppcls.engine.engine")',
        'SECTIONS = "Global AMP Arch Loss Optimizer DataLoader Metric".split()',
        'LOADER = ["num_workers", "use_shared_memory"]',
    ],
)
def test_the_search_finds(source):
    assert problems(source)
