# SPDX-License-Identifier: Apache-2.0
"""Every reference in code and documents leads somewhere: equations, names, files, links."""

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

EQUATIONS = {
    "CC": "cluster_contrast.md",
    "CSA": "csa.md",
    "Clustering": "clustering.md",
    "HHCL": "hhcl.md",
    "ISE": "ise.md",
}
PACKAGE = REPOSITORY / "ppcls_ise"
CITATION = re.compile(rf"\b({'|'.join(EQUATIONS)})\s+\((\d+)\)")
DEFINITION = re.compile(r"^\| \((\d+)\) \|", flags=re.MULTILINE)
PLACEHOLDERS = (
    "configs/MyMethod_market.yaml",
    "ppcls_ise/heads/my_head.py",
    "benchmarks/nothing.py",
    "benchmarks/x.py",
    "tools/COMMAND.py",
    "tools/tarin.py",
    "tools/x.py",
)
FOLDERS = ("ppcls_ise/", "tests/", "configs/", "tools/", "docs/", "benchmarks/", "test_tipc/")


def texts(*suffixes):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path.suffix in suffixes and path.is_file():
            yield path, path.read_text(encoding="utf-8")


def where(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


# -- equations ----------------------------------------------------------------------------------


def numbers(page: str) -> list[int]:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    return [int(number) for number in DEFINITION.findall(text)]


@pytest.mark.parametrize("page", EQUATIONS.values())
def test_equations_are_numbered_through_in_both_languages(page):
    found = numbers(f"en/{page}")
    assert found == list(range(1, len(found) + 1)) and len(found) > 5
    assert numbers(f"zh_CN/{page}") == found


def test_cited_equations_exist():
    known = {prefix: set(numbers(f"en/{page}")) for prefix, page in EQUATIONS.items()}
    cited = defaultdict(set)
    for path, text in texts(".py", ".md", ".yaml"):
        for prefix, number in CITATION.findall(text):
            assert int(number) in known[prefix], f"{where(path)} cites {prefix} ({number})"
            cited[prefix].add(path)
    assert set(cited) == set(EQUATIONS)


def test_nothing_cites_a_document_that_is_elsewhere():
    for path, text in texts(".py", ".md", ".yaml"):
        if path != Path(__file__):
            assert not re.search(r"\bspec(\.md|: )|\b[Ss]pec sections?\b", text), where(path)


# -- names --------------------------------------------------------------------------------------


class Names:
    """What the modules of the package define, found without importing them."""

    def __init__(self) -> None:
        self.modules: dict[str, set[str]] = {"ppcls_ise": set()}
        self.classes: dict[str, set[str]] = {}
        self.bases: dict[str, list[str]] = {}
        self.all: set[str] = set()
        for path in sorted(PACKAGE.rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            self.modules[module] = set(self._module(tree))
            self.all |= self.modules[module] | set(module.split("."))
        for module in list(self.modules):
            parent, _, name = module.rpartition(".")
            if parent:
                self.modules[parent].add(name)

    def _module(self, tree: ast.Module):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.all.add(node.name)
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = self.classes.get(node.name, set()) | set(_members(node))
                self.bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]
                self.all |= self.classes[node.name]
            if isinstance(node, ast.arg):
                self.all.add(node.arg)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (t.id for target in targets for t in ast.walk(target) if _is_name(t))
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield from (name.asname or name.name for name in node.names)

    def members(self, cls: str) -> set[str]:
        inherited = (self.members(base) for base in self.bases[cls] if base in self.classes)
        return self.classes[cls].union(*inherited)

    def resolves(self, name: str) -> bool:
        """Whether a dotted name is there; a single one may be anywhere in the package."""
        first, _, rest = name.partition(".")
        if not rest:
            return first in self.all
        if first == "ppcls_ise":
            return self._absolute(name)
        if first in self.classes:
            return rest.partition(".")[0] in self.members(first)
        tails = [
            names for module, names in self.modules.items() if f".{module}".endswith(f".{first}")
        ]
        if tails:
            return any(rest.partition(".")[0] in names for names in tails)
        return False

    def _absolute(self, name: str) -> bool:
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            names = self.modules.get(".".join(parts[:end]))
            if names is not None:
                rest = parts[end:]
                lazy = end == 1 and rest and rest[0] in self.classes  # of the package's __getattr__
                return not rest or rest[0] in names or lazy
        return False


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


def _members(cls: ast.ClassDef):
    for node in ast.walk(cls):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        yield part.id
                    elif isinstance(part, ast.Attribute):
                        yield part.attr


@pytest.fixture(scope="module")
def names() -> Names:
    return Names()


# `name` in a docstring or comment; ``literal`` is a literal.
REFERENCE = re.compile(r"(?<![`\w])`([A-Za-z_][\w.]*)(?:\(\))?`(?!`)")
ROLE = re.compile(r":(?:mod|class|func|meth):`([\w.]+)`")


def test_names_in_docstrings_and_comments_exist(names):
    found = [
        (name, where(path))
        for path, text in texts(".py")
        if where(path).startswith("ppcls_ise/")
        for name in REFERENCE.findall(text) + ROLE.findall(text)
    ]
    assert len(found) > 100
    assert not [place for place in found if not names.resolves(place[0])]


def defined_in(names: Names, name: str, path: str) -> bool:
    module = path.removesuffix(".py").replace("/", ".")
    first, _, rest = name.partition(".")
    if first not in names.modules.get(module, ()):
        return False
    return not rest or rest in names.members(first)


def test_names_in_documents_exist(names):
    found = 0
    for path, text in texts(".md"):
        for name, file in re.findall(r"`([\w.]+)` in\s+`(ppcls_ise/[\w/]+\.py)`", text):
            found += 1
            assert defined_in(names, name, file), f"{where(path)}: {name} in {file}"
        for file, name in re.findall(r"`(ppcls_ise/[\w/]+\.py)` 的\s*`([\w.]+)`", text):
            found += 1
            assert defined_in(names, name, file), f"{where(path)}: {name} in {file}"
        for row in re.findall(r"^\| \(\d+\) \|.*\|(.*)\|$", text, flags=re.MULTILINE):
            for name in re.findall(r"`([A-Za-z_][\w.]*)`", row):
                if not name.startswith("Loss."):
                    found += 1
                    assert names.resolves(name), f"{where(path)}: `{name}` is nowhere"
        for name in re.findall(r"`([A-Z]\w+\.\w+)(?:\(.*?\))?`", text):
            if name.partition(".")[0] in names.classes:
                assert names.resolves(name), f"{where(path)}: `{name}` is nowhere"
        for name in re.findall(r"`(ppcls_ise(?:\.\w+)+)(?:\(.*?\))?`", text):
            assert names.resolves(name), f"{where(path)}: `{name}` is nowhere"
    assert found > 60


# -- files and links ----------------------------------------------------------------------------


FILE = re.compile(r"[`\s(]((?:\w+/)+[\w.-]+\.(?:py|md|yaml|sh|txt))(?:::(\w+))?")


def test_files_exist():
    missing = []
    for path, text in texts(".md", ".py", ".yaml"):
        for file, test in re.findall(
            r"[`\s(]((?:\w+/)+[\w.-]+\.(?:py|md|yaml|sh|txt))(?:::(\w+))?", text
        ):
            if not file.startswith(FOLDERS) or file in PLACEHOLDERS:
                continue
            there = REPOSITORY / file
            if not there.is_file() or (test and f"def {test}(" not in there.read_text()):
                missing.append((where(path), file, test))
    assert not missing


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    text = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def test_links_lead_somewhere():
    found = 0
    for path, text in texts(".md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"\w+:", target):
                continue
            found += 1
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), f"{where(path)} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in map(slug, headings), f"{where(path)} links to {target}"
    assert found > 30


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("ClusterMemory.update", True),
        ("ClusterMemory._update_hard", False),
        ("HybridMemory.logits", True),  # inherited
        ("no_such_function", False),
        ("ppcls_ise.heads.PLIHead", True),
        ("ppcls_ise.heads.pli_head.pli_degree", True),
        ("ppcls_ise.heads.pli_head.nothing", False),
        ("ppcls_ise.Extractor", True),
        ("training_loop.checkpointing", True),
        ("training_loop.nothing", False),
    ],
)
def test_resolving(names, name, there):
    assert names.resolves(name) is there
