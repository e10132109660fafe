# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes a weight file or checkpoint has: arrays, or an error that names it."""

import pickle
import tracemalloc
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls_ise.errors import WeightsError, shown
from ppcls_ise.weights.loading import read_state
from ppcls_ise.weights.paddle_load import plain_load
from tests.fuzz.harness import damaged, fuzz, nothing_happens

pytestmark = pytest.mark.long

VALUES = {"a.w": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones((), "i8"), "c": np.zeros(0)}
PLAIN = {"epoch": 3, "metric": 0.5, "name": "x" * 300, "list": [VALUES, ("a", VALUES["a.w"]), None]}
INSTRUCTIONS = [
    bytes([code])
    for name, value in vars(pickle).items()
    if name.isupper() and isinstance(value, bytes) and len(value) == 1
    for code in value
]
NAMES = [
    ("os", "system"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("subprocess", "Popen"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy", "memmap"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("builtins", "tuple"),
]
TOKENS = [
    *INSTRUCTIONS,
    *(f"c{module}\n{name}\n".encode() for module, name in NAMES),
    *(b"\x8c" + bytes([len(word)]) + word for pair in NAMES for word in (p.encode() for p in pair)),
    b"\x8c\x06latin1",
    b"\x8c\x02f4",
    b"\x8c\x01<",
    b"K\x01",
    b"M\x00\x01",
    b"J\xff\xff\xff\xff",
    b"C\x04abcd",
    b"q\x00",
    b"h\x00",
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("samples")
    layer = paddle.nn.Linear(3, 2)
    adam = paddle.optimizer.Adam(parameters=layer.parameters())
    layer(paddle.rand([1, 3])).sum().backward()
    adam.step()
    for number, content in enumerate((layer.state_dict(), [adam.state_dict()], {"epoch": 1})):
        for protocol in (2, 4):
            paddle.save(content, str(folder / f"{number}_{protocol}"), protocol=protocol)
    return [path.read_bytes() for path in sorted(folder.iterdir())] + [
        pickle.dumps(value, protocol)
        for value in (VALUES, OrderedDict(VALUES), PLAIN)
        for protocol in range(2, 6)
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "case.pdparams"
    path.write_bytes(pickle.dumps(VALUES))
    read_state(path)  # what is imported late, is now
    shown("\n")
    return path


def holds_plain_values(value) -> bool:
    if isinstance(value, dict):
        return all(type(k) in (str, int) and holds_plain_values(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(holds_plain_values(item) for item in value)
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "biufc"
    return value is None or type(value) in (bool, int, float, str, bytes)


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read in (read_state, plain_load):
        try:
            with nothing_happens():
                value = read(path)
        except WeightsError as error:
            assert "case.pdparams" in str(error)
        else:
            assert isinstance(value, dict) or read is plain_load
            assert holds_plain_values(value)


@pytest.mark.parametrize("program", [b"cnumpy\nndarray\n", b"(cnumpy\nndarray\nt", b"]q\x00h\x00a"])
def test_what_random_programs_found(path, program):
    """The name of a function as the value; a list that holds itself."""
    check(path, b"\x80\x04" + program + b".")


@fuzz
@given(content=st.binary(max_size=200))
def test_any_bytes(path, content):
    check(path, content)
    check(path, b"\x80\x04" + content + b".")


@fuzz
@given(tokens=st.lists(st.sampled_from(TOKENS) | st.binary(max_size=3), max_size=30))
def test_any_program(path, tokens):
    check(path, b"\x80\x04" + b"".join(tokens) + b".")


@fuzz
@given(data=st.data())
def test_damaged_files(path, samples, data):
    check(path, data.draw(damaged(samples)))


def push(data: bytes) -> bytes:
    return pickle.BINBYTES8 + len(data).to_bytes(8, "little") + data


def test_a_small_file_takes_little_memory(path):
    """A megabyte that 3,000 arrays share; and a million steps that each make something."""
    dtype = b"cnumpy\ndtype\n\x8c\x02u1\x85Rq\x01"
    array = b"cnumpy._core.numeric\n_frombuffer\n(h\x00h\x01M\x00\xfa\x85\x8c\x01CtR"
    shared = push(bytes(64_000)) + b"q\x00" + dtype + b"]q\x02(" + array * 5000 + b"e"
    for program in (shared, b"}" * 1_500_000, b"(" * 1_500_000, b"]\x94" * 700_000):
        path.write_bytes(b"\x80\x04" + program + b".")
        for read in (read_state, plain_load):
            tracemalloc.start()
            try:
                with pytest.raises(WeightsError, match=r"case\.pdparams"):
                    read(path)
                assert tracemalloc.get_traced_memory()[1] < 250 * path.stat().st_size
            finally:
                tracemalloc.stop()


def test_lists_that_share_their_parts_come_to_an_end(path):
    """Forty lists, each with the one before twice: 2^40 for whoever walks through them."""
    program = b"]q\x00K\x01a"
    for i in range(40):
        program += b"]" + b"q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e"
    check(path, b"\x80\x04" + program + b".")
    with pytest.raises(WeightsError, match="two places"):
        plain_load(str(path))
    check(path, b"\x80\x04" + b"]" * 60 + b"a" * 59 + b".")
    with pytest.raises(WeightsError, match="nested"):
        plain_load(str(path))
