# SPDX-License-Identifier: Apache-2.0
"""Training states on disk: whole or not there, whatever happens to the writer or to the file."""

import os
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from ppcls_ise.engine.resume import state_files
from ppcls_ise.engine.resume.state_files import (
    StateFolder,
    publish,
    published_problem,
    read_state_file,
)
from ppcls_ise.errors import WeightsError
from ppcls_ise.utils import array_files, files

STATE = {
    "epoch": 3,
    "step": None,
    "best": -1.0,
    "numbers": [1, 2.5, "a", True, np.float32(0.1), np.int64(7)],
    "model": {"array": np.arange(6.0, dtype=np.float32).reshape(2, 3), "tree": np.zeros((0, 4))},
    "optimizers": [{"w": ("w_0", np.array([np.nan, np.inf, -0.0])), "LR_Scheduler": {"last": 2}}],
    "labels": np.array([-1, 5], np.int64),
    "scalar": np.array(3, np.int16),
    "empty": {},
}


def equal(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_a_state_comes_back_bit_by_bit(tmp_path):
    path = StateFolder(tmp_path / "resume").write(STATE)
    assert equal(STATE, read_state_file(path))
    with safe_open(path, "numpy") as file:  # a file that other programs read too
        array = file.get_tensor("/model/array")
    assert equal(array, STATE["model"]["array"])


json_trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(tree=st.dictionaries(st.text(), json_trees))
@settings(max_examples=25, deadline=None)
def test_any_tree_comes_back(tree, tmp_path_factory):
    folder = StateFolder(tmp_path_factory.mktemp("tree"))
    assert equal(tree, read_state_file(folder.write(tree)))


def test_the_newest_are_kept_and_another_runs_states_go_with_the_first_save(tmp_path):
    for run, names in ((1, ["000002", "000003"]), (2, ["000004"])):
        folder = StateFolder(tmp_path, keep=2)
        for _ in range(4 - run if run == 1 else 1):
            folder.write({"run": run})
        found = sorted(path.name for path in tmp_path.iterdir())
        assert [name.split(".")[0] for name in found] == names
        assert {read_state_file(path)["run"] for path in folder.paths()} == {run}
        assert folder.last == folder.paths()[0]


def test_a_continued_run_keeps_the_state_it_came_from(tmp_path):
    first = StateFolder(tmp_path)
    first.write({}), first.write({})
    second = StateFolder(tmp_path)
    second.adopt(second.paths()[0])
    second.write({})
    assert [path.name[:6] for path in second.paths()] == ["000003", "000002"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
        lambda content: b"",
        lambda content: content + b"\0",
    ],
    ids=["truncated", "flipped bit", "empty", "longer"],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = StateFolder(tmp_path).write(STATE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=f"{path.name} is damaged"):
        read_state_file(path)


def test_a_state_of_the_first_version_is_no_state(tmp_path):
    folder = StateFolder(tmp_path)
    assert not folder.has_old_states()
    (tmp_path / f"000001-{'0' * 16}.npz").write_bytes(b"PK")
    assert folder.has_old_states() and not folder.paths()
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_file(tmp_path / "none.safetensors")


class Trap:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_a_crafted_file_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "trap.npz"
    np.savez(target, tree=np.array([Trap()], dtype=object))
    for content in (target.read_bytes(), pickle.dumps(Trap())):
        (tmp_path / "000001.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match="no state"):
            read_state_file(tmp_path / "000001.safetensors")
    assert not (tmp_path / "owned").exists()


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    return StateFolder(tmp_path_factory.mktemp("fuzz")).write(STATE)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_fuzzed_files_are_refused(data, whole_file):
    content = bytearray(whole_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    path = whole_file.with_name("000002.safetensors")
    path.write_bytes(content[:cut])
    if content[:cut] == whole_file.read_bytes():
        return
    with pytest.raises(WeightsError, match="is damaged"):
        read_state_file(path)


# -- a writer that is killed at any line -----------------------------------------------------------

MODULES = {state_files.__file__, array_files.__file__, files.__file__}


def killed_at_line(number: int, work) -> bool:
    """Run ``work`` in a child that is killed before the ``number``-th line of the modules that
    write; False if it was done before that."""
    child = os.fork()
    if not child:
        lines = iter(range(number))

        def trace(frame, event, argument):
            if frame.f_code.co_filename not in MODULES:
                return None
            if event == "line" and next(lines, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


@pytest.mark.slow
@pytest.mark.long
def test_a_state_is_whole_wherever_its_writer_is_killed(tmp_path):
    seen = set()
    for line in range(1000):
        folder = tmp_path / str(line)
        old = StateFolder(folder, keep=1)
        old.write({"state": "old", "array": np.zeros(50)})

        def work(folder=folder, old=old):
            new = StateFolder(folder, keep=1)
            new.adopt(old.last)
            new.write({"state": "new", "array": np.ones(60)})

        killed = killed_at_line(line, work)
        states = [read_state_file(path)["state"] for path in old.paths()]
        assert states in (["old"], ["new", "old"], ["new"])
        seen.add(tuple(states))
        again = StateFolder(folder)
        again.write({"state": "next"})  # whatever was left behind is no obstacle
        assert {path.suffix for path in folder.iterdir()} == {".safetensors"}
        shutil.rmtree(folder)
        if not killed:
            break
    assert len(seen) == 3 and line > 30


@pytest.mark.slow
@pytest.mark.long
def test_published_files_are_whole_wherever_their_writer_is_killed(tmp_path):
    names = ("latest.pdopt", "latest.pdparams")
    problems = set()
    for line in range(1000):
        target, source = tmp_path / f"{line}" / "run", tmp_path / f"{line}" / "saving.tmp"
        for word in ("old", "new"):
            source.mkdir(parents=True)
            for name in names:
                (source / name).write_text(f"{word} {name}")
            if word == "old":
                publish(source, target, "latest")
                shutil.rmtree(source)
        killed = killed_at_line(line, lambda s=source, t=target: publish(s, t, "latest"))
        content = [(target / name).read_text() for name in names]
        assert all(content[i] in (f"old {names[i]}", f"new {names[i]}") for i in (0, 1))
        mixed = len({text[:3] for text in content}) > 1
        problem = published_problem(str(target / "latest"))
        assert problem or not mixed
        problems.add(bool(problem))
        shutil.rmtree(tmp_path / f"{line}")
        if not killed:
            break
    assert problem is None and problems == {True, False} and content[0].startswith("new")


def test_a_list_of_checksums_is_that_of_sha256sum(tmp_path):
    source = tmp_path / "saving.tmp"
    (source / "best_model").mkdir(parents=True)
    (source / "latest.pdopt").write_bytes(b"1")
    (source / "best_model" / "model.pdparams").write_bytes(b"2")
    publish(source, tmp_path, "latest")
    command = ["sha256sum", "-c", "latest.sha256"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    assert published_problem(str(tmp_path / "latest")) is None
    assert published_problem(str(tmp_path / "other")) is None
    (tmp_path / "latest.pdopt").write_bytes(b"3")
    assert "latest.pdopt is not the file" in published_problem(str(tmp_path / "latest"))
    (tmp_path / "latest.pdopt").unlink()
    assert "there is no" in published_problem(str(tmp_path / "latest"))
