# SPDX-License-Identifier: Apache-2.0
"""Trees of arrays come back bit by bit; crafted and damaged files end as errors, within bounds."""

import errno
import hashlib
import io
import json
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ppcls_ise.errors import DataError
from ppcls_ise.utils import array_files
from ppcls_ise.utils.array_files import read_numpy, read_tree, write_tree
from tests.fuzz.harness import damaged, fuzz, nothing_happens

KIND = "ppcls_ise thing 1"
TREE = {"a/b": np.arange(3), "a": {"b": np.zeros((0, 2), "f2"), "c": [np.array(True), None]}}


def read(path):
    return read_tree(path, kind=KIND, error=DataError)


def test_keys_with_slashes(tmp_path):
    write_tree(tmp_path / "t", TREE, kind=KIND)
    tree = read(tmp_path / "t")
    assert tree["a/b"].tolist() == [0, 1, 2] and tree["a"]["b"].shape == (0, 2)
    assert tree["a"]["c"][0].shape == () and tree["a"]["c"][0] and tree["a"]["c"][1] is None
    tree["a/b"][:] = 0  # the caller's own


def test_another_kind(tmp_path):
    write_tree(tmp_path / "t", TREE, kind="ppcls_ise other 1")
    with pytest.raises(DataError, match="no thing of this version.*other 1"):
        read(tmp_path / "t")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    @contextmanager
    def full(path):
        yield Path("/dev/full")

    monkeypatch.setattr(array_files, "replacing", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_tree(tmp_path / "t", TREE, kind=KIND)
    assert error.value.errno == errno.ENOSPC


def crafted(path, tree: bytes, **arrays):
    """A file whose checksum is right."""
    arrays["tree"] = np.frombuffer(tree, np.uint8)
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name}\n{arrays[name].dtype} {arrays[name].shape}\n".encode())
        total.update(arrays[name].tobytes())
    save_file(arrays, path, {"format": KIND, "sha256": total.hexdigest()})


@pytest.mark.parametrize(
    "tree",
    [b"", b"[]", b"{", b'{"array": "a9"}', b'{"array": []}', b'{"table": 3}', b'{"o": 1}', b"\xff"]
    + [b"[" * 99_999, b'{"table": {"x": {"array": {}}}}', b"9" * 9999, b"null"],
)
def test_crafted_trees(tmp_path, tree):
    crafted(tmp_path / "t", tree)
    with pytest.raises(DataError, match="no thing"):
        read(tmp_path / "t")
    crafted(tmp_path / "t", json.dumps({"table": {"x": 1}}).encode())
    assert read(tmp_path / "t") == {"x": 1}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "t"
    write_tree(path, TREE, kind=KIND)
    return path


@pytest.fixture(scope="module")
def whole(path):
    return path.read_bytes()


@fuzz
@given(data=st.data())
def test_damaged_trees(path, whole, data):
    content = data.draw(damaged([whole]))
    path.write_bytes(content)
    if content != whole:
        with pytest.raises(DataError, match="damaged"), nothing_happens():
            read(path)


def npz(path, members: dict[str, bytes], *, compress=False):
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as content:
        for name, data in members.items():
            content.writestr(name, data)


def npy(array, **changes) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    data = stream.getvalue()
    for old, new in changes.values():
        data = data.replace(old, new)
    return data


ARRAYS = {
    "f": np.arange(6, dtype=np.float32).reshape(2, 3),
    "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "names": np.array(["a", "\udcffb"]),
    "one": np.array("text"),
    "none": np.zeros((0, 4), "i8"),
    "empty": np.array(["", ""]),
    "big": np.arange(3, dtype=">i4"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy_files_come_back(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_numpy(tmp_path / "a.npz", error=DataError, what="is none")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].flags.writeable
    np.save(tmp_path / "a.npy", ARRAYS["f"])
    found = read_numpy(tmp_path / "a.npy", error=DataError, what="is none")
    np.testing.assert_array_equal(found[""], ARRAYS["f"])


HEADER = npy(np.zeros(2))[:128]
HOSTILE = {
    "nothing": b"",
    "objects": npy(np.array([1, None], object)),
    "records": npy(np.zeros(2, "f4,i4")),
    "a shape of 10^12": npy(np.zeros(2), s=(b"(2,)", b"(1000000000000,)")),
    "negative": npy(np.zeros(2), s=(b"(2,)", b"(-2,)")),
    "no end": HEADER,
    "deep": b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10_000,
    "tokens": npy(np.zeros(2), s=(b"(2,)", b"('''")),
    "version": b"\x93NUMPY\x09\x00" + HEADER[8:],
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("zipped", [False, True])
def test_hostile_numpy_files(tmp_path, case, zipped):
    path = tmp_path / "a"
    path.write_bytes(HOSTILE[case])
    if zipped:
        npz(path, {"features.npy": HOSTILE[case]})
    with pytest.raises(DataError, match="a is none"), nothing_happens():
        read_numpy(path, error=DataError, what="is none")


def test_a_small_file_takes_little_memory(tmp_path):
    path = tmp_path / "a.npz"
    npz(path, {"features.npy": npy(np.zeros((1000, 20_000), np.float32))}, compress=True)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="10 times its size"):
            read_numpy(path, error=DataError, what="is none")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    np.savez_compressed(path, **ARRAYS)
    whole = path.read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(int(generator.integers(1, 6))):
            content[int(generator.integers(len(content)))] = int(generator.integers(256))
        path.write_bytes(content)
        try:
            read_numpy(path, error=DataError, what="is none")
        except DataError:
            pass
