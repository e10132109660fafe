# SPDX-License-Identifier: Apache-2.0
"""PyTorch's two file formats without PyTorch: files as its own code writes them, crafted ones, and
what PyTorch makes of ours where it is installed."""

import collections
import importlib.util
import io
import os
import pickle
import struct
import subprocess
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from ppcls_ise.errors import WeightsError
from ppcls_ise.weights.conversion import read_torch, write_torch
from ppcls_ise.weights.torch_file import read_torch_file, write_torch_file

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
KINDS = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "int64": "Long",
    "bool": "Bool",
}


class Tensor:
    """Pickled as a tensor whose numbers are a storage of their own."""

    def __init__(self, value, *, kind=None, shape=None, stride=None, offset=0):
        self.value = np.asarray(value)
        self.kind = kind or KINDS[self.value.dtype.name]
        self.shape = self.value.shape if shape is None else shape
        self.stride = np.empty(self.shape, np.uint8).strides if stride is None else stride
        self.offset = offset


class TorchPickler(pickle._Pickler):
    """Writes what PyTorch's pickler writes; `storages` are to be put beside it."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, Tensor):
            return super().save(obj, save_persistent_id)
        self._name("torch._utils", "_rebuild_tensor_v2")
        self.write(pickle.MARK + pickle.MARK)
        super().save("storage")
        self._name("torch", f"{obj.kind}Storage")
        for part in (str(len(self.storages)), "cpu", obj.value.size):
            super().save(part)
        self.write(pickle.TUPLE + pickle.BINPERSID)
        self.storages.append(obj.value.tobytes())
        for part in (obj.offset, tuple(obj.shape), tuple(obj.stride), False):
            super().save(part)
        super().save(collections.OrderedDict())
        self.write(pickle.TUPLE + pickle.REDUCE)
        return None

    def _name(self, module, name):
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())


def save(content, path: Path, *, zipped=True, compression=zipfile.ZIP_STORED) -> None:
    """``torch.save`` in either format."""
    stream = io.BytesIO()
    pickler = TorchPickler(stream)
    pickler.dump(content)
    if zipped:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr(f"{path.stem}/data.pkl", stream.getvalue())
            archive.writestr(f"{path.stem}/byteorder", "little")
            for i, data in enumerate(pickler.storages):
                archive.writestr(f"{path.stem}/data/{i}", data)
            archive.writestr(f"{path.stem}/version", "3\n")
        return
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        file.write(stream.getvalue())
        pickle.dump([str(i) for i in range(len(pickler.storages))], file, protocol=2)
        sizes = [item.value for item in _tensors(content)]
        for value, data in zip(sizes, pickler.storages, strict=True):
            file.write(struct.pack("<q", value.size) + data)


def _tensors(content):
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict):
        for item in content.values():
            yield from _tensors(item)
    elif isinstance(content, list | tuple):
        for item in content:
            yield from _tensors(item)


both_formats = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


@both_formats
def test_a_training_checkpoint_is_read(zipped, tmp_path):
    """With options, optimizer, a numpy number and versions of layers, which are passed over."""
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)}
    state = collections.OrderedDict((n, Tensor(v)) for n, v in weights.items())
    content = {
        "state_dict": state,
        "epoch": 3,
        "args": Namespace(arch="vit_small", crops=(0.4, 1.0), nothing=None),
        "best_mAP": np.float64(0.847),
        "optimizer": {"state": {0: {"step": Tensor(np.ones(2, np.float32))}}, "param_groups": []},
    }
    path = tmp_path / "checkpoint.pth"
    save(content, path, zipped=zipped)
    read = read_torch(path)
    assert list(read) == list(weights)
    for name, value in weights.items():
        assert read[name].dtype == value.dtype and read[name].tobytes() == value.tobytes()


@both_formats
def test_the_teacher_comes_before_everything_else(zipped, tmp_path):
    path = tmp_path / "dino.pth"
    parts = {key: {"w": Tensor(np.full(2, i, np.float32))} for i, key in enumerate("abc")}
    content = {"student": parts["a"], "teacher": parts["b"], "state_dict": parts["c"]}
    save(content, path, zipped=zipped)
    np.testing.assert_array_equal(read_torch(path)["w"], [1, 1])
    for key in ("state_dict", "model"):
        save({"epoch": 1, key: parts["c"]}, path, zipped=zipped)
        np.testing.assert_array_equal(read_torch(path)["w"], [2, 2])


@both_formats
def test_kinds_views_and_empty_tensors(zipped, tmp_path):
    base = np.arange(12, dtype=np.float32)
    brain = np.array([1.5, -2.0, 0.1], np.float32)
    truncated = (brain.view(np.uint32) >> 16).astype(np.uint16)
    content = {
        "transposed": Tensor(base, shape=(3, 4), stride=(1, 3)),
        "part": Tensor(base, shape=(2,), stride=(5,), offset=6),
        "number": Tensor(base, shape=(), stride=(), offset=11),
        "empty": Tensor(base[:0]),
        "half": Tensor(np.array([0.5, 2.0], np.float16)),
        "bfloat16": Tensor(truncated, kind="BFloat16"),
        "double": Tensor(np.array([1e-300])),
        "bool": Tensor(np.array([True, False])),
    }
    path = tmp_path / "a.pt"
    save(content, path, zipped=zipped)
    read = read_torch(path)
    np.testing.assert_array_equal(read["transposed"], base.reshape(4, 3).T)
    np.testing.assert_array_equal(read["part"], [6, 11])
    assert read["number"].shape == () and read["number"] == 11
    assert read["empty"].shape == (0,)
    np.testing.assert_array_equal(read["half"], np.array([0.5, 2.0], np.float32))
    np.testing.assert_array_equal(read["bfloat16"], (truncated.astype(np.uint32) << 16).view("f4"))
    assert read["double"][0] == 1e-300 and read["bool"].tolist() == [True, False]
    assert all(value.flags.writeable for value in read.values())


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@both_formats
@pytest.mark.parametrize(
    "attack",
    [
        Call(os.system, "touch victim"),
        Call(subprocess.call, ["touch", "victim"]),
        Call(eval, "open('victim', 'w')"),
        Call(np.save, "victim", np.zeros(1)),
        np.array([None]),
        collections.Counter(),
        Path("victim"),
    ],
    ids=["system", "call", "eval", "save", "objects", "counter", "path"],
)
def test_what_asks_for_code_is_refused(attack, zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    for content in (attack, {"state_dict": {"a": attack}}, {"args": Namespace(x=[attack])}):
        save(content, path, zipped=zipped)
        with pytest.raises(WeightsError, match=r"bad\.pth is no PyTorch checkpoint.*safely"):
            read_torch(path)
    assert os.listdir(tmp_path) == ["bad.pth"]


@both_formats
@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(np.ones(4, np.float32), shape=(5,), stride=(1,)),
        Tensor(np.ones(4, np.float32), shape=(2, 2), stride=(3, 1)),
        Tensor(np.ones(4, np.float32), shape=(10**12,), stride=(0,)),
        Tensor(np.ones(4, np.float32), shape=(-2, -2), stride=(1, 1)),
        Tensor(np.ones(4, np.float32), shape=(4,), stride=(-1,), offset=3),
        Tensor(np.ones(4, np.float32), shape=(1,), stride=(1,), offset=4),
        Tensor(np.ones(4, np.float32), shape=(4,), stride=(1, 1)),
        Tensor(np.ones(4, np.float32), kind="ComplexFloat"),
        Tensor(np.ones(4, np.float32), kind="../Float"),
    ],
)
def test_tensors_outside_their_storage_are_refused(tensor, zipped, tmp_path):
    path = tmp_path / "bad.pth"
    save({"a": tensor}, path, zipped=zipped)
    with pytest.raises(WeightsError, match=r"bad\.pth"):
        read_torch(path)


@both_formats
def test_truncated_files_and_other_contents(zipped, tmp_path):
    path = tmp_path / "a.pth"
    for content in (3, {}, {"state_dict": {}}, {"epoch": 3}, {"a": Tensor(1.0), "b": 2}, [1]):
        save(content, path, zipped=zipped)
        with pytest.raises(WeightsError, match="no state_dict"):
            read_torch(path)
    save({"a": Tensor(np.ones(100, np.float32))}, path, zipped=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"a\.pth"):
            read_torch(path)


def test_zip_files_of_another_kind(tmp_path):
    path = tmp_path / "a.pth"
    save({"a": Tensor(np.zeros(10**6, np.float32))}, path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed, which PyTorch never does"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(WeightsError, match=r"holds no data\.pkl"):
        read_torch(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_torch(tmp_path / "none.pth")


def test_what_is_written_is_read_and_bytes_do_not_depend_on_the_time(tmp_path):
    generator = np.random.default_rng(0)
    state = {
        "a.weight": generator.standard_normal((3, 4, 1, 2), dtype=np.float32),
        "a.turned": generator.standard_normal((3, 5), dtype=np.float32).T,
        "a.num_batches_tracked": np.zeros((), np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    for name in ("a.pth", "b.pth"):
        write_torch(tmp_path / name, state)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    content, values = read_torch_file(tmp_path / "a.pth")
    assert list(content) == ["state_dict"]
    for name, item in content["state_dict"].items():
        got = values(item)
        assert got.dtype == state[name].dtype
        np.testing.assert_array_equal(got, state[name])
    with pytest.raises(WeightsError, match="cannot be written"):
        write_torch("/proc/none/a.pth", state)


@needs_torch
def test_pytorch_reads_what_is_written(tmp_path):
    import torch

    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3)}
    write_torch_file(tmp_path / "a.pth", state)
    read = torch.load(tmp_path / "a.pth", weights_only=True)["state_dict"]
    assert list(read) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(read[name].numpy(), value)


@needs_torch
@both_formats
def test_files_of_pytorch_are_read(zipped, tmp_path):
    """Of a module with a data-parallel prefix, an optimizer, half precision, shared storages."""
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.rand(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    state = module.state_dict()
    state["bfloat16"] = state["0.weight"].bfloat16()
    state["half"] = state["0.weight"].half()
    state["view"] = state["0.weight"][1:, ::2].transpose(0, 2)
    content = {"state_dict": state, "optimizer": optimizer.state_dict(), "args": Namespace(a=1)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    read = read_torch(tmp_path / "a.pth")
    assert list(read) == list(state)
    for name, value in state.items():
        expected = value.float() if value.is_floating_point() else value
        np.testing.assert_array_equal(read[name], expected.numpy())
