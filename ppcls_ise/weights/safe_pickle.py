# SPDX-License-Identifier: Apache-2.0
"""Reading a pickle of arrays and plain containers without running anything in it.

A pickle is a program for a small stack machine, and Python's own machine calls whatever the program
names. This one knows only the part of the language that tables of arrays are written in (pickle
protocols 2 to 5). The few functions such files name (numpy's array constructor, for one) are never
looked up: each is replaced by a checked step (`pickled_arrays`). So there is nothing to call, and
no object whose attributes could be set.

Cost: one pass; memory is that of the file and of at most a million small objects. Every declared
length is compared with the rest of the file before anything is allocated. What is read is a tree:
no list or table is in it twice, or in itself, so that whoever walks through it comes to an end.
"""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppcls_ise.errors import WeightsError, shown
from ppcls_ise.weights.pickled_arrays import (
    DamagedPickle,
    ElementType,
    NamedFunction,
    PickledArrays,
    RefusedPickle,
)

_MAX_STEPS = 1_000_000  # a table of 1,000 tensors takes about 30,000
_MAX_PROTOCOL = 5
_MAX_DEPTH = 50
_DAMAGED = "cannot be read as Paddle weights; it may be truncated, or a file of another kind"

_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    pickle.NONE: lambda: None,
    pickle.NEWTRUE: lambda: True,
    pickle.NEWFALSE: lambda: False,
    pickle.EMPTY_TUPLE: tuple,
    pickle.EMPTY_LIST: list,
    pickle.EMPTY_DICT: dict,
}
# Opcode -> how many bytes its length or number takes.
_BYTES = {pickle.SHORT_BINBYTES: 1, pickle.BINBYTES: 4, pickle.BINBYTES8: 8, pickle.BYTEARRAY8: 8}
_TEXT = {pickle.SHORT_BINUNICODE: 1, pickle.BINUNICODE: 4, pickle.BINUNICODE8: 8}
_UNSIGNED = {pickle.BININT1: 1, pickle.BININT2: 2}
_PUT = {pickle.BINPUT: 1, pickle.LONG_BINPUT: 4}
_GET = {pickle.BINGET: 1, pickle.LONG_BINGET: 4}
_SHORT_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}
_OPCODE_NAMES = {
    value: name
    for name, value in vars(pickle).items()
    if name.isupper() and isinstance(value, bytes) and len(value) == 1
}


def read_pickle(path: Path) -> Any:
    """Read a file of arrays, numbers, texts, lists, tuples and tables.

    Returns:
        What the file holds; an ``OrderedDict`` becomes a ``dict``.

    Raises:
        WeightsError: it asks for code, or is truncated, inconsistent or no pickle; names the file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            value = PickleMachine(file, size, PickledArrays(size)).run()
        _require_tree(value)
        return value
    except RefusedPickle as error:
        raise WeightsError(
            f"{shown(path)} is not a safe weight file: {error}. It is not loaded, because loading "
            "it could run code."
        ) from None
    except DamagedPickle as error:
        raise WeightsError(f"{shown(path)} {_DAMAGED}: {error}") from error
    except OSError as error:
        raise WeightsError(f"{shown(path)} cannot be read: {error.strerror}") from error


def _require_tree(value: Any) -> None:
    """Make sure that all is plain values, nested to a bounded depth, every container there once
    (but for (name, tensor), which Paddle may mention twice)."""
    seen: set[int] = set()
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, NamedFunction | ElementType):
            raise RefusedPickle("it holds a function or type in place of a value")
        if type(item) not in (dict, list, tuple) or is_tensor(item):
            continue
        if item and id(item) in seen:
            raise RefusedPickle("it holds one list or table in two places")
        if depth > _MAX_DEPTH:
            raise RefusedPickle(f"it is nested more than {_MAX_DEPTH} deep")
        seen.add(id(item))
        waiting += [(v, depth + 1) for v in (item.values() if type(item) is dict else item)]


def is_tensor(value: Any) -> bool:
    """Whether this is (name, array), as Paddle pickles a tensor that is not directly in a table."""
    return (
        type(value) is tuple
        and len(value) == 2
        and type(value[0]) is str
        and isinstance(value[1], np.ndarray)
    )


class PickleMachine:
    """One run over one pickle.

    Args:
        file: at the beginning of the pickle.
        size: bytes that are left in it.
        functions: what stands in for the functions that the pickle names.
    """

    def __init__(self, file: BinaryIO, size: int, functions: PickledArrays) -> None:
        self._file = file
        self._left = size
        self._arrays = functions
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under the open marks
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """See `read_pickle`."""
        try:
            return self._run()
        except WeightsError:
            raise
        except MemoryError as error:
            raise DamagedPickle("it is larger than the memory") from error
        except Exception as error:
            raise DamagedPickle(f"{type(error).__name__}: {error}") from error

    def _run(self) -> Any:
        for _ in range(_MAX_STEPS):
            opcode = self._take(1)
            if opcode == pickle.STOP:
                return self._stack.pop()
            self._do(opcode)
        raise RefusedPickle(f"it has more than {_MAX_STEPS:,} steps")

    def _take(self, count: int) -> bytes:
        """The next ``count`` bytes; nothing is allocated for more than the file has."""
        if count > self._left:
            raise DamagedPickle(f"it ends within {count} bytes that it announces")
        data = self._file.read(count)
        if len(data) != count:
            raise DamagedPickle("it became shorter while it was read")
        self._left -= count
        return data

    def _number(self, num_bytes: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(num_bytes), "little", signed=signed)

    def _do(self, opcode: bytes) -> None:
        push = self._stack.append
        if opcode in _CONSTANTS:
            push(_CONSTANTS[opcode]())
        elif opcode in _PUT:
            self._memo[self._number(_PUT[opcode])] = self._stack[-1]
        elif opcode in _GET:
            push(self._memo[self._number(_GET[opcode])])
        elif opcode in _TEXT:
            push(self._take(self._number(_TEXT[opcode])).decode("utf-8", "surrogatepass"))
        elif opcode in _BYTES:
            push(self._take(self._number(_BYTES[opcode])))
        elif opcode in _UNSIGNED:
            push(self._number(_UNSIGNED[opcode]))
        elif opcode in _SHORT_TUPLES:
            push(tuple(self._pop() for _ in range(_SHORT_TUPLES[opcode]))[::-1])
        elif opcode in self._OTHERS:
            self._OTHERS[opcode](self)
        else:
            name = _OPCODE_NAMES.get(opcode, opcode.hex())
            raise RefusedPickle(
                f"it uses the pickle instruction {name}, which a file of plain arrays never does"
            )

    def _pop(self) -> Any:
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    # -- one method per remaining opcode -------------------------------------------------------

    def _proto(self) -> None:
        if (version := self._number(1)) > _MAX_PROTOCOL:
            raise DamagedPickle(f"pickle protocol {version} is unknown")

    def _frame(self) -> None:
        if (length := self._number(8)) > self._left:
            raise DamagedPickle(f"it ends within a frame of {length} bytes")

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _signed(self) -> None:
        self._stack.append(self._number(4, signed=True))

    def _long(self) -> None:
        self._stack.append(self._number(self._number(1), signed=True))

    def _float(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _tuple(self) -> None:
        items = self._pop_to_mark()
        self._stack.append(tuple(items))

    def _append(self) -> None:
        self._add_items([self._pop()])

    def _appends(self) -> None:
        self._add_items(self._pop_to_mark())

    def _add_items(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise RefusedPickle("it appends to something that is no list")
        self._stack[-1].extend(items)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_pairs([key, value])

    def _set_items(self) -> None:
        self._set_pairs(self._pop_to_mark())

    def _set_pairs(self, items: list[Any]) -> None:
        table = self._stack[-1]
        if type(table) is not dict:
            raise RefusedPickle("it sets an item of something that is no table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a nested tuple can take for ever.
            if type(key) not in (str, int):
                raise RefusedPickle(f"a table has a key of type {type(key).__name__}")
            table[key] = value

    def _global(self) -> None:
        self._push_global(*(self._line() for _ in range(2)))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._push_global(module, name)

    def _line(self) -> str:
        text = self._file.readline(min(self._left, 1000))
        self._left -= len(text)
        if not text.endswith(b"\n"):
            raise DamagedPickle("a name in it does not end")
        return text[:-1].decode()

    def _push_global(self, module: Any, name: Any) -> None:
        self._stack.append(self._arrays.named(module, name))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(self._arrays.call(function, arguments))

    def _persistent(self) -> None:
        self._stack.append(self._arrays.persistent(self._pop()))

    def _build(self) -> None:
        state = self._pop()
        self._arrays.set_state(self._stack[-1], state)

    _OTHERS: dict[bytes, Callable[["PickleMachine"], None]] = {
        pickle.PROTO: _proto,
        pickle.FRAME: _frame,
        pickle.MARK: _mark,
        pickle.MEMOIZE: _memoize,
        pickle.BININT: _signed,
        pickle.LONG1: _long,
        pickle.BINFLOAT: _float,
        pickle.TUPLE: _tuple,
        pickle.APPEND: _append,
        pickle.APPENDS: _appends,
        pickle.SETITEM: _set_item,
        pickle.SETITEMS: _set_items,
        pickle.GLOBAL: _global,
        pickle.STACK_GLOBAL: _stack_global,
        pickle.REDUCE: _reduce,
        pickle.NEWOBJ: _reduce,
        pickle.BINPERSID: _persistent,
        pickle.BUILD: _build,
    }
