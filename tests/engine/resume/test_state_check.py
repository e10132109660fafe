# SPDX-License-Identifier: Apache-2.0
"""States and checkpoints edited by hand, with right checksums: an error that names the file, before
anything is set."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest

import ppcls_ise
from ppcls_ise.engine.resume.checkpoints import find_state
from ppcls_ise.engine.resume.state_files import KIND, StateFolder, read_state_file
from ppcls_ise.errors import ReIDError, WeightsError
from ppcls_ise.utils.array_files import write_tree
from tests.conftest import lite_overrides
from tests.engine.test_engine import engine_of


def set_at(*place_and_value):
    *place, last, value = place_and_value

    def edit(state):
        for key in place:
            state = state[key]
        state[last] = value(state.get(last) if isinstance(state, dict) else state[last])

    return edit


def constant(value):
    return lambda _: value


def first_weight(change):
    def edit(state):
        name = next(iter(state["model"]))
        state["model"][name] = change(state["model"][name])

    return edit


def first_moment(change, key=None):
    def edit(state):
        name = next(name for name in state["optimizers"][0] if "moment1" in name)
        value = state["optimizers"][0].pop(name)
        state["optimizers"][0][key or name] = change(value)

    return edit


LABELS = ("callbacks", "ClusteringCallback", "labels")
EDITS = {
    "epoch text": set_at("epoch", constant("one")),
    "epoch negative": set_at("epoch", constant(-1)),
    "epoch huge": set_at("epoch", constant(10**30)),
    "epoch true": set_at("epoch", constant(True)),
    "step list": set_at("step", constant([1])),
    "step past the end": set_at("step", constant(1000)),
    "best list": set_at("best", constant([])),
    "global step": set_at("global_step", constant(-3)),
    "format": set_at("format", constant(99)),
    "meters list": set_at("meters", constant([1])),
    "meter short": set_at("meters", constant({"loss": [1.0]})),
    "images number": set_at("images", constant(3)),
    "no model": lambda state: state.pop("model"),
    "model list": set_at("model", constant([])),
    "weight missing": lambda state: state["model"].popitem(),
    "weight shape": first_weight(lambda value: value.reshape(-1)),
    "weight text": first_weight(lambda value: "text"),
    "weight unknown": set_at("model", "other", constant(np.zeros(3, np.float32))),
    "loss unknown": set_at("loss", constant({"w": np.zeros(2)})),
    "optimizers table": set_at("optimizers", constant({})),
    "no optimizer": set_at("optimizers", constant([])),
    "two optimizers": set_at("optimizers", lambda value: value * 2),
    "moment shape": first_moment(lambda value: [value[0], np.zeros((7, 7), np.float32)]),
    "moment number": first_moment(lambda value: 3),
    "moment of nothing": first_moment(lambda value: value, key="nothing_moment1_0"),
    "moment whole": first_moment(lambda value: [value[0], value[1].astype(np.int64)]),
    "schedule text": set_at("optimizers", 0, "LR_Scheduler", constant("text")),
    "schedule epoch": set_at("optimizers", 0, "LR_Scheduler", "last_epoch", constant("x")),
    "master weights": set_at("optimizers", 0, "master_weights", constant({"x": 1})),
    "memory text": set_at("memory", constant("text")),
    "memory vector": set_at("memory", lambda value: value[0]),
    "memory narrow": set_at("memory", lambda value: value[:, :5]),
    "memory empty": set_at("memory", lambda value: value[:0]),
    "callbacks list": set_at("callbacks", constant([])),
    "callback number": set_at("callbacks", "ClusteringCallback", constant(3)),
    "labels short": set_at(*LABELS, lambda value: value[:-1]),
    "labels float": set_at(*LABELS, lambda value: value.astype(np.float32)),
    "label 10^10": set_at(*LABELS, lambda value: np.append(value[:-1], 10**10)),
    "label -2": set_at(*LABELS, lambda value: np.append(value[:-1], -2)),
    "labels number": set_at(*LABELS, constant(1)),
    "recall text": set_at("callbacks", "ClusteringCallback", "recall", constant("x")),
    "stepped text": set_at("callbacks", "EpochReport", constant({"x": 1})),
}


@pytest.fixture(scope="module")
def run(lite_set, tmp_path_factory):
    """Overrides of a run of one epoch, and its state."""
    ppcls_ise.register()
    folder = tmp_path_factory.mktemp("run")
    overrides = lite_overrides(lite_set, folder, Global__epochs=1, Global__eval_during_train=False)
    engine_of(overrides).train()
    prefix = folder / "RecModel" / "latest"
    state = read_state_file(StateFolder(prefix.parent / "resume").paths()[0])
    engine = engine_of([*overrides, "Global.epochs=3"])
    return engine, state, prefix


def resume(engine, prefix) -> None:
    """As the tool does, up to the first step."""
    checkpoints = engine.checkpoints
    checkpoints._resumed, checkpoints._source = find_state(engine, str(prefix))
    checkpoints._restore()


def test_edited_states_are_refused(run, tmp_path):
    engine, state, _ = run
    (tmp_path / "resume").mkdir()
    file = tmp_path / "resume" / "000001.safetensors"
    for name, edit in EDITS.items():
        edited = copy.deepcopy(state)
        edit(edited)
        write_tree(file, edited, kind=KIND)
        tracemalloc.start()
        try:
            with pytest.raises(ReIDError, match="000001"):
                resume(engine, tmp_path / "latest")
                raise AssertionError(f"{name}: taken")
            assert tracemalloc.get_traced_memory()[1] < 50_000_000, name
        finally:
            tracemalloc.stop()
    write_tree(file, state, kind=KIND)
    resume(engine, tmp_path / "latest")


PARTS = {
    ".pdopt": [
        [],
        3,
        {"x": 1},
        {"LR_Scheduler": []},
        {"LR_Scheduler": {"last_epoch": "x"}},
        {"master_weights": []},
        {"a": ("a", np.zeros(3))},
        [{}, {}],
        [3],
        {1: 2},
    ],
    ".pdstates": [
        [],
        {},
        {"epoch": "1"},
        {"epoch": -1},
        {"epoch": 10**40},
        {"epoch": True},
        {"epoch": 1, "metric": "x"},
        {"epoch": 1, "metric": []},
        {"epoch": 1, "metric": 10**400},
    ],
}


@pytest.mark.parametrize("suffix", PARTS)
def test_edited_checkpoints_are_refused(run, tmp_path, suffix):
    engine, _, prefix = run
    for part in (".pdparams", ".pdopt", ".pdstates"):
        (tmp_path / f"epoch_1{part}").write_bytes(prefix.with_suffix(part).read_bytes())
    resume(engine, tmp_path / "epoch_1")
    for content in PARTS[suffix]:
        (tmp_path / f"epoch_1{suffix}").write_bytes(pickle.dumps(content))
        with pytest.raises(WeightsError, match="epoch_1"):
            resume(engine, tmp_path / "epoch_1")
            raise AssertionError(f"{content}: taken")
