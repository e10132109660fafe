# SPDX-License-Identifier: Apache-2.0
import builtins
import os
import pickle
import subprocess

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_ise.errors import WeightsError
from ppcls_ise.weights import load_into, read_state, weight_path


class Model(nn.Layer):
    """Names as in a RecModel."""

    def __init__(self, width: int = 4, classes: int | None = None) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2D(3, width, 3), nn.BatchNorm2D(width))
        self.neck = nn.Sequential(nn.BatchNorm1D(width))
        if classes:
            self.head = nn.Sequential(nn.Linear(width, classes))


def save(layer: nn.Layer, path) -> dict[str, np.ndarray]:
    paddle.save(layer.state_dict(), str(path))
    return {name: value.numpy() for name, value in layer.state_dict().items()}


def test_round_trip(tmp_path):
    saved = save(Model(), tmp_path / "w.pdparams")
    state = read_state(weight_path(str(tmp_path / "w")))
    assert set(state) == set(saved)
    model = Model()
    report = load_into(model, state, source="w")
    assert len(report.loaded) == len(saved) and not report.missing
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), saved[name])


def test_a_classifier_that_is_not_used_is_no_error(tmp_path):
    save(Model(classes=7), tmp_path / "w.pdparams")
    state = read_state(tmp_path / "w.pdparams")
    report = load_into(Model(), state, source="w")
    assert report.unexpected == ["head.0.weight", "head.0.bias"]
    assert "2 unexpected (head.0.weight, head.0.bias)" in str(report)
    report = load_into(Model(classes=9), state, source="w")
    assert len(report.mismatched) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {"module." + k: v for k, v in s.items()}, "0 tensors loaded"),
        (lambda s: {k: v for k, v in s.items() if "neck" not in k}, "missing (neck.0.weight"),
        (lambda s: s | {"backbone.9.weight": s["neck.0.bias"]}, "unexpected (backbone.9.weight"),
        (lambda s: s | {"neck.0.weight": np.ones(5, np.float32)}, "[5] instead of [4]"),
        (lambda s: {}, "0 tensors loaded"),
    ],
)
def test_what_does_not_fit_is_an_error_and_changes_nothing(change, words):
    model = Model()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    other = {name: value.numpy() for name, value in Model().state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_into(model, change(other), source="some.pdparams")
    assert "some.pdparams" in str(error.value) and words in str(error.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_no_such_file():
    with pytest.raises(WeightsError, match="Global.pretrained_model"):
        weight_path("nowhere/latest")


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "attack",
    [
        Attack(os.system, "touch {}"),
        Attack(subprocess.call, ["touch", "{}"]),
        Attack(builtins.eval, "open('{}', 'w')"),
        Attack(builtins.exec, "open('{}', 'w')"),
        Attack(builtins.open, "{}", "w"),
        Attack(os.mkdir, "{}"),
        Attack(np.save, "{}", np.zeros(1)),
        Attack(paddle.save, {}, "{}"),
    ],
    ids=lambda attack: attack.call[0].__name__,
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": x}, lambda x: {"a": [(x,)]}])
def test_a_crafted_file_does_not_run(tmp_path, attack, wrap):
    victim = tmp_path / "victim"

    def aim(value):
        if isinstance(value, str):
            return value.replace("{}", str(victim))
        return [aim(v) for v in value] if isinstance(value, list) else value

    function, arguments = attack.call
    armed = Attack(function, *map(aim, arguments))
    path = tmp_path / "bad.pdparams"
    path.write_bytes(pickle.dumps(wrap(armed)))
    with pytest.raises(WeightsError, match="not a safe weight file|cannot be read"):
        read_state(path)
    assert not list(tmp_path.glob("victim*"))
    assert path.exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"hello", b"PK\x03\x04zip", b"\x80\x04N."])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "torn.pdparams"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"torn\.pdparams"):
        read_state(path)


def test_a_torn_file_is_named(tmp_path):
    save(Model(), tmp_path / "w.pdparams")
    whole = (tmp_path / "w.pdparams").read_bytes()
    path = tmp_path / "torn.pdparams"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"torn\.pdparams"):
            read_state(path)


def test_entries_that_are_no_arrays(tmp_path):
    path = tmp_path / "odd.pdparams"
    for value in (3, "text", np.array([None]), [np.ones(1)]):
        path.write_bytes(pickle.dumps({"a": np.ones(1), "epoch": value}))
        with pytest.raises(WeightsError, match="not arrays: epoch"):
            read_state(path)
