# SPDX-License-Identifier: Apache-2.0
import builtins
import collections
import ctypes
import functools
import importlib
import marshal
import math
import operator
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_ise.errors import WeightsError
from ppcls_ise.weights.loading import load_into, read_state, weight_path, write_state


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
    assert "2 left out (head.0.weight, head.0.bias)" in str(report)
    report = load_into(Model(classes=9), state, source="w")
    assert len(report.mismatched) == 2


def test_tensors_of_a_supervised_loss_are_left_out_with_a_word(tmp_path):
    state = {name: value.numpy() for name, value in Model().state_dict().items()}
    state["loss_func.1.centers"] = np.zeros((3, 4), np.float32)
    report = load_into(Model(), state, source="w")
    assert str(report) == f"{len(state) - 1} tensors loaded, 1 left out (loss_func.1.centers)"


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


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class State(Call):
    """Pickles as a table whose state is set."""

    def __reduce__(self):
        return (collections.OrderedDict, (), *self.call[1])


def text(value: str) -> bytes:
    data = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    data = value.to_bytes(16, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    """The function of that dotted name, as protocol 4 looks it up."""
    return text(module) + text(name) + pickle.STACK_GLOBAL


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def file_of(program: bytes, *, protocol: int = 4) -> bytes:
    return pickle.PROTO + bytes([protocol]) + program + pickle.STOP


def table_of(value: bytes) -> bytes:
    return file_of(pickle.EMPTY_DICT + text("a") + value + pickle.SETITEM)


SYSTEM = b"cos\nsystem\n"
COMMAND = text("touch victim")
ARRAY = called(
    named("numpy.core.multiarray", "_reconstruct"),
    named("numpy", "ndarray"),
    pickle.EMPTY_TUPLE,
    pickle.SHORT_BINBYTES + b"\x01b",
)
FLOAT = called(named("numpy", "dtype"), text("f4"))
NOTHING = pickle.SHORT_BINBYTES + b"\x00"
ONE = pickle.BININT1 + b"\x01"


def array(
    shape: bytes, dtype: bytes = FLOAT, data: bytes = pickle.SHORT_BINBYTES + b"\x00"
) -> bytes:
    """An array with that state, fit or not."""
    state = ONE + shape + dtype + pickle.NEWFALSE + data
    return ARRAY + pickle.MARK + state + pickle.TUPLE + pickle.BUILD


def objects() -> np.ndarray:
    value = np.empty(1, object)
    value[0] = Call(os.system, "touch victim")
    return value


ATTACKS = {
    "os.system": Call(os.system, "touch victim"),
    "subprocess.call": Call(subprocess.call, ["touch", "victim"]),
    "subprocess.Popen": Call(subprocess.Popen, ["touch", "victim"]),
    "eval": Call(builtins.eval, "open('victim', 'w')"),
    "exec": Call(builtins.exec, "open('victim', 'w')"),
    "compile": Call(builtins.compile, "open('victim', 'w')", "x", "exec"),
    "open": Call(builtins.open, "victim", "w"),
    "import": Call(builtins.__import__, "os"),
    "importlib": Call(importlib.import_module, "os"),
    "getattr": Call(builtins.getattr, Call(importlib.import_module, "os"), "system"),
    "mkdir": Call(os.mkdir, "victim"),
    "numpy.save": Call(np.save, "victim", np.zeros(1)),
    "numpy.load": Call(np.load, "victim.npy", None, True),
    "numpy.memmap": Call(np.memmap, "victim", "uint8", "w+", 0, (1,)),
    "numpy.frombuffer": Call(np.frombuffer, b"1234"),
    "paddle.save": Call(paddle.save, {}, "victim"),
    "partial": Call(functools.partial, os.system, "touch victim"),
    "partial called": called(called(named("functools", "partial"), SYSTEM, COMMAND)),
    "attrgetter": Call(operator.attrgetter, "system"),
    "methodcaller": called(
        called(named("operator", "methodcaller"), text("system"), COMMAND),
        called(named("importlib", "import_module"), text("os")),
    ),
    "map": Call(list, Call(map, os.system, ["touch victim"])),
    "loads": Call(pickle.loads, file_of(called(SYSTEM, COMMAND))),
    "marshal": Call(marshal.loads, b"N"),
    "ctypes": Call(ctypes.CDLL, None),
    "object array": objects(),
    "object array in a list": [{"b": (objects(),)}],
    "table state": State(None, {"__class__": 1}),
    "table subclass state": State(None, (None, {"update": Call(os.system, "touch victim")})),
    "bytes subclass": Call(bytes, 10**12),
    "bytearray": Call(bytearray, 10**12),
    "function type": called(named("types", "FunctionType"), ONE, pickle.EMPTY_DICT),
    "code type": called(named("types", "CodeType"), ONE),
    "copyreg reconstructor": called(
        named("copyreg", "_reconstructor"),
        named("numpy", "ndarray"),
        named("builtins", "object"),
        pickle.NONE,
    ),
    "copyreg newobj": called(named("copyreg", "__newobj__"), named("os", "system")),
    "copyreg extension": called(named("copyreg", "add_extension"), text("os"), text("system"), ONE),
    "runstring": called(
        named("numpy.testing._private.utils", "runstring"), COMMAND, pickle.EMPTY_DICT
    ),
    "f2py": called(named("numpy.f2py", "compile"), COMMAND),
    "umath": called(named("numpy.core._multiarray_umath", "fromfile"), text("victim")),
    "umath 2": called(named("numpy._core._multiarray_umath", "add_docstring"), ONE, COMMAND),
    "attribute chain": called(named("numpy", "ndarray.__class__"), COMMAND),
    "attribute chain to a base": named("numpy", "ndarray.__class__.__base__.__subclasses__"),
    "attribute chain to globals": named("numpy.core.multiarray", "_reconstruct.__globals__"),
    "attribute chain through a module": called(named("numpy", "f2py.os.system"), COMMAND),
    "attribute chain of a table": named("collections", "OrderedDict.__init__.__globals__"),
    "module as a name": called(named("", "os.system"), COMMAND),
    "name that is no text": ONE + ONE + pickle.STACK_GLOBAL,
    "name of a table": pickle.EMPTY_DICT + text("x") + pickle.STACK_GLOBAL,
    "python 2 name": called(b"c__builtin__\neval\n", text("open('victim', 'w')")),
    "posix": called(b"cposix\nsystem\n", COMMAND),
    "encode to rot13": called(named("_codecs", "encode"), text("x"), text("rot13")),
    "encode to idna": called(named("_codecs", "encode"), text("x" * 99), text("idna")),
    "encode with a handler": called(named("_codecs", "encode"), text("x"), text("latin1"), ONE),
    "decode": called(named("_codecs", "decode"), text("x"), text("zlib")),
    "register": called(named("_codecs", "register"), named("os", "system")),
    "INST": pickle.MARK + COMMAND + b"ios\nsystem\n",
    "OBJ": pickle.MARK + SYSTEM + COMMAND + pickle.OBJ,
    "OBJ of a known name": pickle.MARK + named("collections", "OrderedDict") + pickle.OBJ,
    "NEWOBJ": named("subprocess", "Popen") + COMMAND + pickle.TUPLE1 + pickle.NEWOBJ,
    "NEWOBJ of a known name": named("numpy", "ndarray") + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
    "NEWOBJ_EX": named("numpy", "ndarray")
    + pickle.EMPTY_TUPLE
    + pickle.EMPTY_DICT
    + pickle.NEWOBJ_EX,
    "PERSID": b"Pvictim\n",
    "BINPERSID": COMMAND + pickle.BINPERSID,
    "EXT1": pickle.EXT1 + b"\x01",
    "EXT2": pickle.EXT2 + b"\x01\x00",
    "EXT4": pickle.EXT4 + b"\x01\x00\x00\x00",
    "NEXT_BUFFER": pickle.NEXT_BUFFER,
    "text opcodes": b"I01\n",
    "ndarray called": called(named("numpy", "ndarray"), integer(10**12) + pickle.TUPLE1),
    "state of a function": named("_codecs", "encode") + pickle.EMPTY_DICT + pickle.BUILD,
    "slots of a function": named("numpy", "dtype")
    + pickle.NONE
    + (pickle.EMPTY_DICT + text("__init__") + SYSTEM + pickle.SETITEM)
    + pickle.TUPLE2
    + pickle.BUILD,
    "state of a list": pickle.EMPTY_LIST + pickle.EMPTY_DICT + pickle.BUILD,
    "items of an array": ARRAY + text("a") + ONE + pickle.SETITEM,
    "append to an array": ARRAY + ONE + pickle.APPEND,
    "call of text": called(text("os.system"), COMMAND),
    "call without a tuple": named("collections", "OrderedDict") + pickle.EMPTY_LIST + pickle.REDUCE,
    "array of a file": called(
        named("numpy.core.multiarray", "_reconstruct"),
        named("numpy", "memmap"),
        text("victim") + pickle.TUPLE1,
        text("w+"),
    ),
    "array of a subclass": called(
        named("numpy.core.multiarray", "_reconstruct"),
        named("collections", "OrderedDict"),
        pickle.EMPTY_TUPLE,
        text("b"),
    ),
    "object type": called(named("numpy", "dtype"), text("O8")),
    "record type": called(named("numpy", "dtype"), text("V1000000000")),
    "type by name": called(named("numpy", "dtype"), text("object")),
    "list of types": called(named("numpy", "dtype"), pickle.EMPTY_LIST),
    "flags of a type": FLOAT
    + pickle.MARK
    + (integer(3) + text("<") + pickle.NONE * 3 + integer(-1) * 2 + integer(0x3F))
    + pickle.TUPLE
    + pickle.BUILD
    + text("x")
    + pickle.BUILD,
    "fields of a type": FLOAT
    + pickle.MARK
    + (integer(3) + text("<") + ONE + text("a") + pickle.EMPTY_DICT)
    + pickle.TUPLE
    + pickle.BUILD,
    "array of 10^12": array(integer(10**12) + pickle.TUPLE1),
    "array of 2^64 rows of nothing": array(integer(2**64) + ONE + pickle.TUPLE2),
    "array of negative length": array(integer(-1) + pickle.TUPLE1),
    "array with two negative lengths": array(integer(-1) + integer(-1) + pickle.TUPLE2),
    "array of lists": array(ONE + pickle.TUPLE1, data=pickle.EMPTY_LIST),
    "array of text": array(ONE + pickle.TUPLE1, data=text("abcd")),
    "array without a type": array(ONE + pickle.TUPLE1, dtype=text("f4")),
    "array with 100 dimensions": array(
        pickle.MARK + ONE * 100 + pickle.TUPLE, data=pickle.SHORT_BINBYTES + b"\x04abcd"
    ),
    "memo number": ONE + pickle.LONG_BINPUT + b"\xff\xff\xff\xff" + COMMAND,
    "memo that is not there": pickle.LONG_BINGET + b"\xff\xff\xff\xff",
    "announced bytes": pickle.BINBYTES8 + struct.pack("<Q", 2**62),
    "announced text": pickle.BINUNICODE8 + struct.pack("<Q", 2**63 - 1),
    "announced bytearray": pickle.BYTEARRAY8 + struct.pack("<Q", 2**64 - 1),
    "announced frame": pickle.FRAME + struct.pack("<Q", 10**12),
    "announced integer": pickle.LONG4 + struct.pack("<i", 2**31 - 1),
    "repeated data": pickle.EMPTY_LIST
    + text("x" * 10_000)
    + b"r\x00\x00\x00\x00"
    + called(named("_codecs", "encode"), b"j\x00\x00\x00\x00", text("latin1")) * 10_000,
    "nested keys": pickle.EMPTY_DICT
    + pickle.EMPTY_TUPLE
    + (pickle.DUP + pickle.TUPLE2) * 60
    + ONE
    + pickle.SETITEM,
    "nested keys by memo": pickle.EMPTY_DICT
    + pickle.EMPTY_TUPLE
    + b"".join(
        pickle.BINPUT + bytes([i]) + pickle.BINGET + bytes([i]) + pickle.TUPLE2 for i in range(60)
    )
    + ONE
    + pickle.SETITEM,
    "list as a key": pickle.EMPTY_DICT + pickle.EMPTY_LIST + ONE + pickle.SETITEM,
    "nested lists": pickle.EMPTY_LIST * 100_000 + pickle.APPEND * 99_999,
    "nested tuples": pickle.EMPTY_TUPLE + pickle.TUPLE1 * 100_000,
    "nested marks": pickle.MARK * 100_000 + pickle.TUPLE * 100_000,
    "deep name": named("collections", "OrderedDict" + ".x" * 100_000),
    "list that holds itself": pickle.EMPTY_LIST + pickle.MEMOIZE + pickle.BINGET + b"\0" + b"a",
    "surrogates": called(text("os\ud800").replace(b"", b"") if False else SYSTEM, COMMAND),
    "unknown opcode": b"\xff",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "as a value"])
def test_a_crafted_file_does_nothing(tmp_path, monkeypatch, attack, inside):
    """No file is made, no module imported, no memory taken; the error names the file."""
    monkeypatch.chdir(tmp_path)
    if isinstance(attack, bytes):
        content = table_of(attack) if inside else file_of(attack)
    else:
        content = pickle.dumps({"a": attack} if inside else attack)
    path = tmp_path / "bad.pdparams"
    path.write_bytes(content)
    modules = set(sys.modules)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=r"bad\.pdparams"):
            read_state(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert os.listdir(tmp_path) == ["bad.pdparams"]
    assert set(sys.modules) == modules
    assert peak < 300 * len(content) + 5_000_000


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
    for value in (3, "text", None, np.float32(1), [np.ones(1)], {"b": np.ones(1)}):
        path.write_bytes(pickle.dumps({"a": np.ones(1), "epoch": value}))
        with pytest.raises(WeightsError, match="not arrays: epoch"):
            read_state(path)
    for value in (np.array([None]), np.array(["text"]), np.zeros(1, "f4,i4"), np.zeros(1, "M8[s]")):
        path.write_bytes(pickle.dumps({"a": np.ones(1), "epoch": value}))
        with pytest.raises(WeightsError, match="no numbers"):
            read_state(path)
    path.write_bytes(pickle.dumps({1: np.ones(1)}))
    with pytest.raises(WeightsError, match="not arrays: 1"):
        read_state(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_kind_of_array_is_read(tmp_path, protocol):
    arrays = {
        f"{shape} {order} {dtype}": np.arange(math.prod(shape))
        .reshape(shape, order=order)
        .astype(dtype)
        for shape in ((), (0,), (3, 0, 2), (5,), (2, 3, 4), (40, 60))
        for order in "CF"
        for dtype in ("?", "i1", "u1", "<i8", ">i2", "f2", "<f4", ">f8", "c8")
    }
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(collections.OrderedDict(arrays), protocol=protocol))
    state = read_state(path)
    assert list(state) == list(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(state[name], value)
        assert state[name].shape == value.shape
        assert state[name].dtype.newbyteorder("=") == value.dtype.newbyteorder("=")
        state[name][...] = 0  # the caller's own, to change at will


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_paddle_saves_is_read(tmp_path, protocol):
    model = Model(classes=7)
    paddle.save(model.state_dict(), str(tmp_path / "w.pdparams"), protocol=protocol)
    state = read_state(tmp_path / "w.pdparams")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(state[name], value.numpy())


def test_files_of_either_numpy_are_read(tmp_path):
    """numpy 1 and 2 give their modules other names."""
    path = tmp_path / "w.pdparams"
    content = pickle.dumps({"a": np.arange(5.0)}, protocol=2)
    for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
        path.write_bytes(content.replace(old, new))
        np.testing.assert_array_equal(read_state(path)["a"], np.arange(5.0))


def test_writing_is_atomic_and_exact(tmp_path, monkeypatch):
    state = {"a": np.array([1.5, np.nan, -0.0, 1e-42], np.float32), "b": np.zeros((2, 3), "f4")}
    path = tmp_path / "new" / "w.pdparams"
    write_state(path, state)
    for loaded in (read_state(path), paddle.load(str(path), return_numpy=True)):
        assert {name: loaded[name].tobytes() for name in state} == {
            name: value.tobytes() for name, value in state.items()
        }
    before = path.read_bytes()

    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(paddle, "save", fail)
    with pytest.raises(WeightsError, match="cannot be written: No space left"):
        write_state(path, {"a": np.zeros(1, "f4")})
    assert path.read_bytes() == before and os.listdir(path.parent) == ["w.pdparams"]


def test_a_pytorch_file_is_recognized(tmp_path):
    path = tmp_path / "w.pdparams"
    for content in (b"PK\x03\x04" + bytes(30), pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="ppcls-ise convert"):
            read_state(path)


def test_a_folder_or_nothing_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.pdparams"):
        with pytest.raises(WeightsError, match="cannot be read"):
            read_state(path)


def test_parameters_of_losses_are_not_of_the_network(tmp_path):
    """PaddleClas's develop branch saves those of CenterLoss and the like beside the model's."""
    state = {name: value.numpy() for name, value in Model().state_dict().items()}
    centers = {"loss_func.2.centers": np.zeros((7, 4), np.float32)}
    report = load_into(Model(), state | centers, source="w")
    assert report.unexpected == ["loss_func.2.centers"] and len(report.loaded) == len(state)


def test_a_file_under_the_wrong_key_names_the_right_one():
    whole = {name: value.numpy() for name, value in Model().state_dict().items()}
    backbone = {name: value.numpy() for name, value in Model().backbone.state_dict().items()}
    with pytest.raises(WeightsError, match=r"name the file in Arch\.Backbone\.pretrained"):
        load_into(Model(), backbone, source="w")
    with pytest.raises(WeightsError, match=r"name the file in Global\.pretrained_model"):
        load_into(Model().backbone, whole, source="w")


def test_a_missing_file_names_its_key():
    with pytest.raises(WeightsError, match=r"in Arch\.Backbone\.pretrained"):
        weight_path("nowhere", key="Arch.Backbone.pretrained")
