# SPDX-License-Identifier: Apache-2.0
"""The commands and the Python of the documents on export, inference and search, as they stand."""

import importlib.util
import re
import shlex
import shutil

import numpy as np
import pytest

import ppcls_ise
from ppcls_ise.cli.main import main
from tests.conftest import REPOSITORY

DOCUMENTS = {
    "README.md": "## From checkpoint to use",
    "docs/en/inference.md": "## Export",
    "docs/en/search.md": "# Gallery search",
    "docs/en/cluster.md": "# From crops to people",
    "docs/en/evaluation.md": "# Evaluation",
}
ONNX = all(importlib.util.find_spec(name) for name in ("paddle2onnx", "onnxruntime"))


def blocks(name):
    """(language, text) of the blocks from the document's heading to the next of its level."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    if name == "README.md":
        text = text.split(DOCUMENTS[name])[1].split("\n## ")[0]
    assert DOCUMENTS[name] in text or name == "README.md"
    return re.findall(r"```(bash|python)\n(.*?)```", text, flags=re.DOTALL)


def run_line(line):
    """A line ``ppcls-ise command …`` in this process, as a new one would run it."""
    program, *arguments = shlex.split(line)
    assert program == "ppcls-ise", line
    main(arguments=arguments)


@pytest.mark.slow
def test_documents_run_as_written(lite_set, lite_checkpoint, tmp_path, monkeypatch, capsys):
    ppcls_ise.register()
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "synthetic").symlink_to(lite_set)
    run_folder = tmp_path / "output" / "ISE_synthetic" / "RecModel"
    run_folder.mkdir(parents=True)
    weights = lite_checkpoint[-1].partition("=")[2]
    shutil.copy(f"{weights}.pdparams", run_folder / "latest.pdparams")
    monkeypatch.chdir(tmp_path)
    # As the page of clusters exports it; which clusters there are depends on the weights.
    (tmp_path / "corrections.csv").write_text("action,cluster,with,path\nremove,1,,\n")

    commands = 0
    names = {}
    for name in DOCUMENTS:
        for language, text in blocks(name):
            if language == "python":
                exec(compile(text, name, "exec"), names)
                continue
            for line in text.replace("\\\n", " ").strip().splitlines():
                if ONNX or "--onnx" not in line:
                    run_line(line)
                    commands += 1
    assert commands >= 14
    output = capsys.readouterr().out
    for words in ("max |difference|", "features of", "images/s", "<- chosen", "images removed"):
        assert words in output
    with np.load("output/features.npz", allow_pickle=False) as content:
        assert content["features"].shape == (len(content["paths"]), 128)
    queries = len(list((lite_set / "query").iterdir()))
    assert (tmp_path / "output" / "results.html").read_text().count(
        "data:image/jpeg"
    ) == 11 * queries
