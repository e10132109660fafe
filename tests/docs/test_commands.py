# SPDX-License-Identifier: Apache-2.0
"""Every command of every page: run by a test, held against what it calls, or marked as not run.

A block of code that no test can try has ``<!-- not run: REASON -->`` on the line before it. All
others are looked at line by line: options have to be those of the command, configs, keys and values
have to pass the check that a run makes, targets and scripts have to be there.
"""

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import yaml

from ppcls_ise.cli.main import COMMANDS
from ppcls_ise.config import get_config, packaged_configs
from ppcls_ise.registry import register
from tests.conftest import REPOSITORY

PAGES = [
    *sorted((REPOSITORY / "docs" / "en").glob("*.md")),
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "test_tipc" / "README.md",
]
# Pages whose blocks a test runs as they stand: tests/docs/test_extending.py, test_use_docs.py and
# test_api.py. Their commands are looked at here all the same.
RUN_PYTHON = {"extending.md", "inference.md", "search.md", "api.md"}
BLOCK = re.compile(
    r"^(?P<mark> *<!-- not run: (?P<reason>[^>]*?) ?-->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    flags=re.DOTALL | re.MULTILINE,
)
ON_CPU = "Global.device=cpu"  # the recipes are for cards, which this build of Paddle may not know
# Configs that the pages make -> the packaged ones that they are made of.
OWN_CONFIGS = {
    "mine.yaml": "ISE_market",
    "my_method.yaml": "ISE_synthetic",
    "output/ISE_synthetic/RecModel/config.yaml": "ISE_synthetic",
    "output/first/RecModel/config.yaml": "ISE_folder_cpu",
    "output/second/RecModel/config.yaml": "ISE_folder_cpu",
}


class Block(NamedTuple):
    page: str
    language: str
    text: str
    reason: str | None


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
            yield Block(page.name, found["language"], found["text"], found["reason"])


def lines(text: str) -> list[str]:
    """Commands, with continued lines joined and remarks left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line for line in map(str.strip, joined.splitlines()) if line and line[0] != "#"]


def config_of(name: str) -> str:
    return OWN_CONFIGS.get(name, name)


# -- what a line may be -------------------------------------------------------------------------


class _Refused(Exception):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise _Refused(message)


def parsed(command: str, arguments: list[str]) -> argparse.Namespace:
    """The arguments of a command of ours, as its own parser takes them."""
    module = importlib.import_module(f"ppcls_ise.cli.{COMMANDS[command][0]}")
    parser = _Parser(prog=command)
    module.configure(parser)
    return parser.parse_args(arguments)


MODES = {"train": "train", "eval": "eval", "export": "export", "infer": "export"}


def check_ours(arguments: list[str]) -> None:
    """``ppcls-ise …``: a known command, its options, and the configuration that they make."""
    if arguments in (["--help"], ["--version"]):
        return
    command, *rest = arguments
    if command not in COMMANDS:
        raise _Refused(f"there is no command {command}")
    args = parsed(command, rest)
    config = getattr(args, "config", None)
    if config and command in MODES:
        get_config(config_of(config), [*args.override, ON_CPU], mode=MODES[command])
    elif config and config_of(config) not in packaged_configs():
        raise _Refused(f"there is no config {config}")


TOOLS = {
    "export_model": "export",
    "convert_weights": "convert",
    "make_synthetic": "synthetic",
    "suggest_eps": "suggest-eps",
}


def check_script(path: str, arguments: list[str]) -> None:
    """``python tools/x.py``, ``python benchmarks/x.py``: there, and with these options."""
    script = REPOSITORY / path
    if not script.is_file():
        raise _Refused(f"there is no {path}")
    if path.startswith("tools/"):
        check_ours([TOOLS.get(script.stem, script.stem), *arguments])
        return
    source = script.read_text(encoding="utf-8")
    modules = re.findall(r"^from (benchmarks\.\w+) import", source, re.MULTILINE)
    source += "".join((REPOSITORY / f"{name.replace('.', '/')}.py").read_text() for name in modules)
    known = {text for node in ast.walk(ast.parse(source)) for text in _texts(node)}
    for argument in arguments:
        if argument.startswith("-") and argument not in known:
            raise _Refused(f"{path} has no {argument}")


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


LAUNCHER = re.compile(r"python -m paddle\.distributed\.launch (.*?)(\S+\.py) (.*)")


def check_line(line: str) -> None:
    """Raise where a line cannot be right, or is of no kind that can be looked at."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_][A-Z_0-9]*=.*", words[0]):
        words.pop(0)  # a variable before the command
    if not words:
        return
    if ">" in words:
        words = words[: words.index(">")]
    program, *rest = words
    if program in ("cd", "export", "source"):
        return  # where the next lines run
    if program == "ppcls-ise":
        check_ours(rest)
    elif words[:3] == ["python", "-m", "ppcls_ise"]:
        check_ours(words[3:])
    elif launched := LAUNCHER.match(line):
        check_script(launched[2], shlex.split(launched[3], comments=True))
    elif program == "python" and rest[0].endswith(".py"):
        check_script(rest[0], rest[1:])
    elif program == "make":
        targets = re.findall(
            r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE
        )
        if missing := [word for word in rest if "=" not in word and word not in targets]:
            raise _Refused(f"the Makefile has no {missing[0]}")
    elif program == "bash" and (REPOSITORY / rest[0]).is_file():
        pass  # the chains of TIPC: tests/tipc/test_tipc.py runs them
    elif words[:3] == ["python", "-m", "pytest"]:
        if missing := [w for w in rest[2:] if w.startswith("tests/") and not _there(w)]:
            raise _Refused(f"there is no {missing[0]}")
    elif program == "-o":
        for override in words[1::2]:
            config = "ISE_folder" if "camera_" in line else "ISE_market"
            get_config(config, [override, ON_CPU])
    else:
        raise _Refused("mark the block as not run, with the reason")


def _there(path: str) -> bool:
    return (REPOSITORY / path.partition("::")[0]).exists()


def problems(block: Block) -> list[str]:
    if block.reason is not None:
        return [] if len(block.reason) > 8 else ["the mark gives no reason"]
    if block.language == "python":
        return [] if block.page in RUN_PYTHON else ["no test runs this Python"]
    if block.language == "yaml":
        try:
            yaml.safe_load(re.sub(r"\*(\w+)", r"\1", block.text))
        except yaml.YAMLError as error:
            return [f"no YAML: {error}"]
        return []
    if block.language != "bash":
        return []  # what a command shows
    found = []
    text = re.sub(r"\$CONFIG\b", _variable(block.text), block.text)
    for line in lines(text):
        if block.page == "extending.md" and not line.startswith("ppcls-ise"):
            continue  # test_extending.py runs these
        try:
            check_line(line)
        except Exception as error:  # of the parser, of the config's check, of shlex
            found.append(f"{line}: {type(error).__name__}: {error}")
    return found


def _variable(text: str) -> str:
    found = re.search(r'^CONFIG="?([^"\n]*)"?$', text, flags=re.MULTILINE)
    return found[1] if found else "CONFIG"


@pytest.fixture(scope="module", autouse=True)
def registered():
    register()


def test_every_block_is_checked_or_marked(monkeypatch, tmp_path):
    # The method of extending.md exists only where test_extending.py makes it.
    monkeypatch.chdir(tmp_path)
    all_blocks = list(blocks())
    assert sum(block.language == "bash" for block in all_blocks) > 40
    found = [(block.page, problem) for block in all_blocks for problem in problems(block)]
    assert found == []


def test_marks_are_rare():
    all_blocks = list(blocks())
    marked = [block for block in all_blocks if block.reason is not None]
    assert len(marked) < len(all_blocks) / 4, [block.reason for block in marked]


@pytest.mark.parametrize(
    "line",
    [
        "ppcls-ise trian -c ISE_market",
        "ppcls-ise train -c ISE_markt",
        "ppcls-ise train -c ISE_market -o Clustering.epss=0.5",
        "ppcls-ise train -c ISE_market --fast",
        "ppcls-ise infer --model m --imagse x",
        "python tools/tarin.py -c ISE_market",
        "python benchmarks/methods.py --sedes 3",
        "python benchmarks/nothing.py",
        "make tset",
        "docker run --shm-size=2g ...",
        "rm -rf /",
        "-o Global.epoch=3",
        "python -m paddle.distributed.launch --gpus 0,1 tools/train.py -c ISE_markt",
    ],
)
def test_wrong_lines_are_found(line):
    with pytest.raises(Exception):  # noqa: B017 - whatever the parser or the check raises
        check_line(line)


@pytest.mark.parametrize("mark", ["", "<!-- not run: needs a card -->\n"])
def test_marks_are_read(mark):
    found = list(BLOCK.finditer(f"text\n\n{mark}```bash\ndocker run\n```\n"))
    assert [block["reason"] for block in found] == [("needs a card" if mark else None)]
