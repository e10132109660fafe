# SPDX-License-Identifier: Apache-2.0
"""The cells of docs/tutorial.ipynb, one after the other, on fewer and smaller images."""

import json
import shlex

import pytest

import ppcls_ise
from ppcls_ise.cli.main import main
from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "tutorial.ipynb"
# What makes the commands short; everything else is as written.
SHORTER = {
    "synthetic": "--num-test-ids 4 --mean-length 3 --height 48 --width 24",
    "train": "-o Global.epochs=2 -o Clustering.warm_up_batches=2 "
    "-o DataLoader.Train.sampler.iters=4 -o DataLoader.Train.sampler.batch_size=16",
}


def cells() -> list[list[list[str]]]:
    """The commands of every cell of code, as lists of words."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    found = []
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            first, *lines = "".join(cell["source"]).replace("\\\n", " ").splitlines()
            assert first == "%%bash"
            found.append([shlex.split(line, comments=True) for line in lines if line.strip()])
    return found


@pytest.mark.long
def test_notebook_runs(tmp_path, monkeypatch, capsys):
    ppcls_ise.register()
    monkeypatch.chdir(tmp_path)
    done = []
    for cell in cells():
        for program, command, *arguments in filter(None, cell):
            assert program == "ppcls-ise"
            main(arguments=[command, *arguments, *shlex.split(SHORTER.get(command, ""))])
            done.append(command)
    assert done.count("train") == 2
    assert set(done) >= {"synthetic", "export", "eval", "compare", "search"}
    assert "mAP" in capsys.readouterr().out
    pages = ["output/first/RecModel/report.html", "output/search.html"]
    assert all(b"</html>" in (tmp_path / page).read_bytes() for page in pages)
