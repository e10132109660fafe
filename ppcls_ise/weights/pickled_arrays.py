# SPDX-License-Identifier: Apache-2.0
"""What numpy writes into a pickle, rebuilt without numpy's own constructors.

Those would allocate what the file announces, accept arrays of Python objects, and let a file set
the flags of an element type, which can make numpy read numbers as addresses.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ppcls_ise.errors import WeightsError

_MAX_DIMENSIONS = 32
_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|c(8|16)")
_BYTE_ORDERS = ("<", ">", "|", "=")


class RefusedPickle(WeightsError):
    """The file asks for something that a table of plain arrays never needs."""


class DamagedPickle(WeightsError):
    """The file ends too early or is no pickle."""


class NamedFunction:
    """Stands for a function that the file names; never the function itself."""

    def __init__(self, name: str, step: "Step | None") -> None:
        self.name = name
        self.step = step


class ElementType:
    """The type of an array's elements as the file describes it: the kind, then the byte order."""

    def __init__(self, kind: str) -> None:
        self.dtype = np.dtype(kind)

    def set_byte_order(self, state: Any) -> None:
        """Take the byte order out of the pickled state of a ``numpy.dtype``, and nothing else."""
        order = state[1] if type(state) is tuple and len(state) >= 2 else None
        if type(order) is not str or order not in _BYTE_ORDERS or any(state[2:5]):
            raise RefusedPickle("the type of an array is described in an unknown way")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]  # checked above


class PickledArrays:
    """The functions that a file of arrays calls, each as a checked step.

    Args:
        size: of the file; neither the arrays nor the text that is turned into bytes get larger.
    """

    def __init__(self, size: int) -> None:
        self._encodable = self._storable = size
        self._unfilled: dict[int, np.ndarray] = {}  # by id; the arrays are kept alive here

    def named(self, module: Any, name: Any) -> NamedFunction:
        """The stand-in for ``module.name``.

        Raises:
            RefusedPickle: files of arrays do not need that function.
        """
        if type(module) is not str or type(name) is not str:
            raise RefusedPickle("it names a function by something that is no text")
        if (module, name) not in self.steps():
            wanted = ascii(f"{module[:200]}.{name[:200]}")[1:-1]
            raise RefusedPickle(f"it asks for {wanted}, which a file of plain arrays never does")
        return NamedFunction(f"{module}.{name}", self.steps()[module, name])

    def steps(self) -> dict[tuple[str, str], "Step | None"]:
        """Module and name of every function that a file may name -> what is done instead; None for
        a name that is only ever an argument."""
        return _STEPS

    def persistent(self, key: Any) -> Any:
        """What the file keeps outside the pickle under ``key``."""
        raise RefusedPickle(
            "it uses the pickle instruction BINPERSID, which a file of plain arrays never does"
        )

    def call(self, function: Any, arguments: Any) -> Any:
        """What ``function(*arguments)`` stands for."""
        if type(function) is not NamedFunction or type(arguments) is not tuple:
            raise RefusedPickle("it calls something that is no function")
        if function.step is None:
            raise RefusedPickle(f"it calls {function.name}, which a file of arrays never does")
        return function.step(self, *arguments)

    def set_state(self, target: Any, state: Any) -> None:
        """Fill an array that `call` made, or complete an element type."""
        if type(target) is ElementType:
            target.set_byte_order(state)
        elif id(target) in self._unfilled:
            self._fill(self._unfilled.pop(id(target)), state)
        else:
            raise RefusedPickle(f"it sets the state of a {type(target).__name__}")

    def _table(self) -> dict:
        return {}

    def _tuple(self, items: Any) -> tuple:
        """Paddle pickles a tensor inside a list as ``tuple((name, array))``."""
        if type(items) is not tuple:
            raise RefusedPickle("it makes a tuple of something else than a tuple")
        return items

    def _no_bytes(self) -> bytes:
        return b""

    def _empty_array(self, kind: Any, shape: Any, code: Any) -> np.ndarray:
        """Filled by `set_state`; what the file asks to allocate does not matter."""
        if type(kind) is not NamedFunction or kind.name != "numpy.ndarray":
            raise RefusedPickle("it makes an array of another type than numpy.ndarray")
        array = np.empty(0, np.uint8)
        self._unfilled[id(array)] = array
        return array

    def _array(self, data: Any, element: Any, shape: Any, order: Any) -> np.ndarray:
        if type(order) is not str or order not in ("C", "F"):
            raise RefusedPickle("an array has its elements in an unknown order")
        return self._fill(np.empty(0, np.uint8), (1, shape, element, order == "F", data))

    def _number(self, element: Any, data: Any) -> Any:
        return self._fill(np.empty(0, np.uint8), (1, (), element, False, data))[()]

    def _element_type(self, code: Any, align: Any = False, copy: Any = False) -> ElementType:
        if type(code) is not str or not _NUMBERS.fullmatch(code):
            kind = code[:20] if type(code) is str else type(code).__name__
            raise RefusedPickle(f"it has an array of {kind}, which are no numbers")
        return ElementType(code)

    def _encode(self, text: Any, encoding: Any) -> bytes:
        """How protocol 2 writes bytes: as text in which every character stands for one."""
        if type(text) is not str or type(encoding) is not str or encoding != "latin1":
            raise RefusedPickle("it encodes something else than text to latin1")
        self._encodable -= len(text)
        if self._encodable < 0:
            raise RefusedPickle("it repeats its data to fill the memory")
        return text.encode("latin1")

    def _fill(self, array: np.ndarray, state: Any) -> np.ndarray:
        """Give ``array`` the pickled state ``(version, shape, type, is Fortran order, data)`` once
        its parts fit each other."""
        if type(state) is not tuple or len(state) != 5:
            raise RefusedPickle("an array's content is described in an unknown way")
        _, shape, element, is_fortran, data = state
        if type(element) is not ElementType or type(data) is not bytes:
            raise RefusedPickle("an array holds something else than numbers")
        if (
            type(shape) is not tuple
            or len(shape) > _MAX_DIMENSIONS
            or not all(type(length) is int and length >= 0 for length in shape)
        ):
            raise RefusedPickle("an array's shape is no list of lengths")
        if math.prod(shape) * element.dtype.itemsize != len(data):
            raise RefusedPickle(
                f"an array announces {math.prod(shape):.3g} elements, but has {len(data)} bytes"
            )
        self._storable -= len(data)
        if self._storable < 0:
            raise RefusedPickle("it uses its data for several arrays, to fill the memory")
        content: Any = (1, shape, element.dtype, bool(is_fortran), data)
        array.__setstate__(content)
        return array


Step = Callable[..., Any]

_STEPS: dict[tuple[str, str], Step | None] = {
    ("collections", "OrderedDict"): PickledArrays._table,
    ("builtins", "tuple"): PickledArrays._tuple,
    ("numpy", "ndarray"): None,  # an argument, never called
    ("numpy", "dtype"): PickledArrays._element_type,
    ("_codecs", "encode"): PickledArrays._encode,
    ("__builtin__", "bytes"): PickledArrays._no_bytes,  # an empty value in protocol 2
    **{
        (f"{package}.{module}", name): step
        for package in ("numpy.core", "numpy._core")
        for module, name, step in (
            ("multiarray", "_reconstruct", PickledArrays._empty_array),
            ("multiarray", "scalar", PickledArrays._number),
            ("numeric", "_frombuffer", PickledArrays._array),
        )
    },
}
