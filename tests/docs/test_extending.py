# SPDX-License-Identifier: Apache-2.0
"""docs/en/extending.md, as it stands: a method in a package of its own."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import yaml

import ppcls_ise
from ppcls_ise.cli.main import main
from ppcls_ise.errors import ConfigError
from ppcls_ise.registry import import_modules
from ppcls_ise.utils import components
from tests.conftest import LITE, REPOSITORY

PAGE = (REPOSITORY / "docs" / "en" / "extending.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in; what is registered and imported there is forgotten again."""
    ppcls_ise.register()
    before = {kind: dict(table) for kind, table in components._TABLES.items()}
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # the page's `export PYTHONPATH=$PWD`
    yield tmp_path
    for kind, table in before.items():
        components._TABLES[kind].clear()
        components._TABLES[kind].update(table)
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("my_package", "mine"):
            del sys.modules[name]


@pytest.mark.slow
def test_page_runs_as_written(folder, lite_set, capsys, heard_logger):
    (folder / "my_package").mkdir()
    (folder / "my_package" / "__init__.py").touch()
    (folder / "my_package" / "my_head.py").write_text(block("python"))
    (folder / "my_method.yaml").write_text(block("yaml"))
    (folder / "dataset").mkdir()
    made = folder / "dataset" / "synthetic"
    # The page's text is what runs; fewer people and steps are all that differs.
    shorter = ["--num-train-ids=10", "--num-test-ids=6", "--images-per-id=8"]
    lite = [f"{key}={value}" for key, value in LITE.items()]
    commands = block("bash").splitlines()
    assert commands[0] == "export PYTHONPATH=$PWD"
    for line in commands[1:]:
        program, *arguments = shlex.split(line)
        if program != "ppcls-ise":
            subprocess.run(["bash", "-euc", line], check=True)
        elif arguments[0] == "synthetic":
            main(None, [*arguments, *shorter])
            assert (made / "query").is_dir()
        else:
            config = ["-o", *" -o ".join(lite).split(" ")] if "-c" in arguments else []
            main(None, [*arguments, *config])
    shown = capsys.readouterr().out
    log = (folder / "output" / "my_method" / "RecModel" / "train.log").read_text()
    assert "margin 0.1000" in log and "CompactLoss" in log
    assert "mAP" in shown and "ecommend" in shown
    with np.load("output/features.npz") as exported, np.load("features.npz") as checkpoint:
        assert exported["features"].shape[1] == 128
        np.testing.assert_allclose(exported["features"], checkpoint["features"], atol=1e-5)


def test_page_is_small():
    lines = [line for line in block("python").splitlines() if line.strip()]
    assert len(lines) <= 60
    assert yaml.safe_load(block("yaml"))["Global"]["imports"] == ["my_package.my_head"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["there is no module mine", "PYTHONPATH"]),
        ("import nowhere_at_all", ["ModuleNotFoundError", "nowhere_at_all", "mine.py, line 1"]),
        ("x = 1\ny = x / 0", ["ZeroDivisionError", "mine.py, line 2"]),
        ("def broken(", ["SyntaxError", "mine.py"]),
        (
            "from ppcls_ise import register\n@register('haed')\nclass Mine: pass",
            ["'haed'", "head"],
        ),
        (
            "from ppcls_ise import register\n@register('head')\nclass PLIHead: pass",
            ["mine registers a head PLIHead", "ppcls_ise.heads.pli_head", "another name"],
        ),
        (
            "from ppcls_ise import register\n@register('neck')\nclass PLIHead: pass",
            ["mine registers a neck PLIHead", "ppcls_ise.heads.pli_head", "another name"],
        ),
        (
            "from ppcls_ise import register\n@register('head')\nclass CircleMargin: pass",
            ["PaddleClas has a neck or head CircleMargin itself", "mine", "another name"],
        ),
        (
            "from ppcls_ise import register\n@register('loss')\nclass TripletLoss: pass",
            ["PaddleClas has a loss TripletLoss itself", "mine", "another name"],
        ),
        (
            "from ppcls_ise import register\n@register('backbone')\nclass ResNet50: pass",
            ["PaddleClas has a backbone ResNet50 itself", "mine", "another name"],
        ),
    ],
)
def test_failing_import_says_why(folder, text, words):
    if text is not None:
        (folder / "mine.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        import_modules(["mine"])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_loading_a_module_anew_is_no_clash(folder):
    (folder / "mine.py").write_text(
        "from ppcls_ise import register\n@register('loss')\nclass MyLoss: pass"
    )
    import_modules(["mine"])
    first = components.components("loss")["MyLoss"]
    del sys.modules["mine"]
    import_modules(["mine"])
    assert components.components("loss")["MyLoss"] is not first
