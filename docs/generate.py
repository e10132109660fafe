# SPDX-License-Identifier: Apache-2.0
"""Fill in what the pages take from docstrings: ``python docs/generate.py``.

Between ``<!-- keys: NAME -->`` and ``<!-- end -->`` comes a table of the keys that a component (or
the section Clustering) takes; between ``<!-- api: DOTTED.NAME -->`` and ``<!-- end -->`` a
signature with its docstring. Chinese texts of the tables are in ``docs/zh_CN/keys.yaml``. A test
fails where a page is not what this writes, or a text has no translation. The notebook is the page
``docs/en/tutorial.md`` cell by cell.
"""

import functools
import inspect
import json
import re
import types
import typing
from pathlib import Path
from typing import Any

import yaml

import ppcls_ise
from ppcls_ise.config import ClusteringOptions
from ppcls_ise.utils.components import components

DOCS = Path(__file__).resolve().parent
KINDS = ("backbone", "neck", "head", "loss", "dataset", "sampler", "transform", "metric")
MARKED = re.compile(r"(<!-- (keys|api): ([\w.]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
_HEADER = ("key", "type", "default", "what it does")
_NOT_KEYS = {"dataset", "world_size", "rank", "name_scope", "dtype", "options"}
_TYPES = {int: "whole number", float: "number", str: "text", bool: "True or False"}
_SECTION = re.compile(r"^(\w+):\s*$", flags=re.MULTILINE)


def described() -> dict[str, Any]:
    """Name -> what the pages describe: the section Clustering, and every component with keys."""
    ppcls_ise.register()
    found = {"Clustering": ClusteringOptions}
    for kind in KINDS:
        found.update(components(kind))
    return {name: cls for name, cls in found.items() if parameters(cls)}


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """The keys of a component, with type and default."""
    code = function.__init__ if inspect.isclass(function) else function
    if not getattr(code, "__module__", "").startswith("ppcls_ise"):
        return {}  # the constructor is Paddle's
    signature = inspect.signature(function, eval_str=True)
    rest = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: parameter
        for name, parameter in signature.parameters.items()
        if name not in _NOT_KEYS and parameter.kind not in rest
    }


def meanings(function: Any) -> dict[str, str]:
    """Key -> its text in the sections Args or Attributes of the docstring, in one line."""
    doc = inspect.getdoc(function) or ""
    parts = _SECTION.split(doc)[1:]
    text = "\n".join(
        body for name, body in zip(parts[::2], parts[1::2], strict=True) if name in _ARGUMENTS
    )
    found: dict[str, str] = {}
    for names, meaning in re.findall(
        r"^    ([\w, ]+): (.*?)(?=^    \w|^\S|\Z)", text, flags=re.DOTALL | re.MULTILINE
    ):
        line = " ".join(meaning.split()).replace("``", "`")
        line = re.sub(r":\w+:`(?:\w+\.)*(\w+)`", r"`\1`", line).rstrip(".")
        found.update(dict.fromkeys((name.strip() for name in names.split(",")), line))
    return found


_ARGUMENTS = ("Args", "Attributes")


def meaning(function: Any, key: str) -> str:
    """What a key does; where the docstring leaves it to a base class, what that one says."""
    owners = inspect.getmro(function) if inspect.isclass(function) else [function]
    texts = [meanings(owner).get(key, "") for owner in owners]
    texts += [meanings(_elsewhere(owners[0])).get(key, "")]
    told = [text for text in texts if text and not text.startswith("see ")]
    return next(iter(told or filter(None, texts)), "")


def _elsewhere(function: Any) -> Any:
    """The component that a docstring refers to by ``see `NAME```."""
    names = re.findall(r"see `(\w+)`", inspect.getdoc(function) or "")
    known = {name: cls for kind in KINDS for name, cls in components(kind).items()}
    return next((known[name] for name in names if name in known), None)


def type_name(annotation: Any) -> str:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        parts = [p for p in typing.get_args(annotation) if p is not types.NoneType]
        names = list(dict.fromkeys(map(type_name, parts)))
        null = types.NoneType in typing.get_args(annotation)
        return " or ".join([*names, *(["null"] if null else [])])
    return _TYPES.get(annotation, "list")


def default_text(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is inspect.Parameter.empty:
        return "required"
    if value is None:
        return "`null`"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{value}`" if value != "" else '`""`'


@functools.cache
def _translations() -> dict[str, str]:
    return yaml.safe_load((DOCS / "zh_CN" / "keys.yaml").read_text(encoding="utf-8"))


def translated(text: str, language: str) -> str:
    if language == "en" or re.fullmatch(r"`[^`]*`", text):
        return text
    if text not in _translations():
        raise LookupError(f"docs/zh_CN/keys.yaml has no translation of {text!r}")
    return _translations()[text]


def key_table(name: str, language: str) -> str:
    """The keys of a component as a table."""
    function = described()[name]
    rows = [tuple(translated(text, language) for text in _HEADER), ("---",) * len(_HEADER)]
    for key, parameter in parameters(function).items():
        text = meaning(function, key)
        if not text:
            raise LookupError(f"the docstring of {name} does not say what {key} does")
        kind = type_name(parameter.annotation)
        plain = kind.removesuffix(" or null")
        null = translated(" or null", language) if plain != kind else ""
        kind = translated(plain, language) + null
        default = translated(default_text(parameter), language)
        rows.append((f"`{key}`", kind, default, translated(text, language)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def api_entry(dotted: str, language: str) -> str:
    """Signature and docstring of a public name; the docstrings are English in both languages."""
    function: Any = ppcls_ise
    for part in dotted.split(".")[1:]:
        function = getattr(function, part)
    signature = str(inspect.signature(function))
    for long, short in _SHORTER:
        signature = re.sub(long, short, signature)
    doc = re.sub(r":\w+:`(?:\w+\.)*(\w+)`", r"`\1`", inspect.getdoc(function) or "")
    return f"```text\n{_folded(dotted + signature)}\n\n{doc}\n```"


_SHORTER = [
    (r"(?:[a-z_0-9]+\.)+(?=[A-Z])", ""),
    (r"\b(?:numpy|np)\.ndarray\b", "ndarray"),
    (r"\bsparse\.csr_matrix\b", "csr_matrix"),
    (r"(?<=: )'([^']*)'", r"\1"),
    (r"(?<=-> )'([^']*)'", r"\1"),
    (r"\((?:self|cls)(?:, )?", "("),
    (r"<[^<>]* object at 0x[0-9a-f]+>", "…"),
]


def _folded(text: str) -> str:
    """A signature on one line, or a parameter on each."""
    if len(text) <= 96:
        return text
    head, _, rest = text.partition("(")
    depth, parts, part = 0, [], ""
    inside, _, tail = rest.rpartition(")")
    for character in inside:
        depth += (character in "[(") - (character in "])")
        if character == "," and not depth:
            parts.append(part.strip())
            part = ""
        else:
            part += character
    lines = "".join(f"    {line},\n" for line in [*parts, part.strip()] if line)
    return f"{head}(\n{lines}){tail}"


def filled(text: str, language: str) -> str:
    """A page with everything between its marks as the code says it now."""
    make = {"keys": key_table, "api": api_entry}

    def between(match: re.Match[str]) -> str:
        return f"{match[1]}\n{make[match[2]](match[3], language)}\n\n{match[4]}"

    return MARKED.sub(between, text)


def pages() -> list[tuple[Path, str]]:
    """Every page that has marks, with its language."""
    found = [(page, folder) for folder in ("en", "zh_CN") for page in (DOCS / folder).glob("*.md")]
    return [(page, language) for page, language in sorted(found) if MARKED.search(page.read_text())]


def notebook() -> str:
    """The tutorial as a notebook: a cell for every block of commands, and for the text between."""
    page = (DOCS / "en" / "tutorial.md").read_text(encoding="utf-8")
    text = page.partition("\n")[2]  # without the line with the license
    text = re.sub(r"\]\((?=\w+\.md)", "](en/", text).replace("](../", "](")
    cells = []
    for i, part in enumerate(re.split(r"```bash\n(.*?)```\n", text, flags=re.DOTALL)):
        code = i % 2 == 1
        source = f"%%bash\n{part.strip()}" if code else part.strip()
        cell = {"cell_type": "code" if code else "markdown", "id": f"cell{i}", "metadata": {}}
        cell |= {"execution_count": None, "outputs": []} if code else {}
        cells.append({**cell, "source": source.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "license": "Apache-2.0"}
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    (DOCS / "tutorial.ipynb").write_text(notebook(), encoding="utf-8")
    for page, language in pages():
        page.write_text(filled(page.read_text(encoding="utf-8"), language), encoding="utf-8")
