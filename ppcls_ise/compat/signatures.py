# SPDX-License-Identifier: Apache-2.0
"""Which keys a component of PaddleClas takes, those included that it hands on.

Most factories take ``**kwargs`` and give them to the network's class, which may give them to its
base class. So the calls are followed through the source, and what each function on the way takes
or reads is collected.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_READS = ("get", "pop", "setdefault")


class _Function(NamedTuple):
    """A function, the class whose method it is, and the class that is being built by it."""

    code: Any
    owner: type | None = None
    built: type | None = None


def accepted_keys(function: Any) -> Mapping[str, inspect.Parameter | None]:
    """Keys that a class or function takes -> how it declares them; None where it only looks them
    up in its ``**kwargs``. What a function on the way sets itself is not open to the caller."""
    return _keys(_constructor(function) if inspect.isclass(function) else _Function(function), [])


def _constructor(cls: type) -> _Function:
    owner = next(base for base in cls.__mro__ if "__init__" in vars(base))
    return _Function(vars(owner)["__init__"], owner, cls)


def _keys(function: _Function, seen: list[Any]) -> dict[str, inspect.Parameter | None]:
    try:
        parameters = list(inspect.signature(function.code).parameters.values())
    except (TypeError, ValueError):  # some functions of C have no signature
        return {}
    if function.owner is not None:
        parameters = parameters[1:]  # self
    named: dict[str, inspect.Parameter | None] = {
        p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
    if not rest or function.code in seen:
        return named
    for key, parameter in _handed_on(function, rest[0], [*seen, function.code]):
        named.setdefault(key, parameter)
    return named


def _handed_on(
    function: _Function, rest: str, seen: list[Any]
) -> Iterator[tuple[str, inspect.Parameter | None]]:
    """What is done with the dictionary ``rest`` of ``function``: keys read, and calls with it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function.code)))
    except (OSError, TypeError, SyntaxError):
        return
    carriers = {rest}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _carries(node.value, carriers):
            carriers |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if key := _key_read(node, carriers):
            yield key, None
        elif isinstance(node, ast.Call) and _unpacks(node.keywords, carriers):
            called = _resolve(node.func, function)
            if called is None:
                continue
            keys = _keys(called, seen)
            given = {keyword.arg for keyword in node.keywords}
            if not any(isinstance(argument, ast.Starred) for argument in node.args):
                given |= set(list(keys)[: len(node.args)])
            yield from ((key, value) for key, value in keys.items() if key not in given)


def _unpacks(keywords: list[ast.keyword], carriers: set[str]) -> bool:
    return any(
        keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id in carriers
        for keyword in keywords
    )


def _carries(value: ast.expr, carriers: set[str]) -> bool:
    """``dict(a=1, **kwargs)``, ``{**kwargs}``, ``kwargs`` or ``copy.deepcopy(kwargs)``."""
    if isinstance(value, ast.Call):
        is_dict = isinstance(value.func, ast.Name) and value.func.id == "dict"
        is_copy = isinstance(value.func, ast.Attribute) and "copy" in value.func.attr
        return (is_dict and _unpacks(value.keywords, carriers)) or (
            is_copy and any(_carries(argument, carriers) for argument in value.args)
        )
    if isinstance(value, ast.Dict):
        unpacked = [v for k, v in zip(value.keys, value.values, strict=True) if k is None]
        return any(isinstance(v, ast.Name) and v.id in carriers for v in unpacked)
    return isinstance(value, ast.Name) and value.id in carriers


def _key_read(node: ast.AST, carriers: set[str]) -> str | None:
    """``kwargs.get("key")``, ``kwargs["key"]`` or ``"key" in kwargs``."""
    place: Any = None
    key: Any = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        if node.func.attr in _READS:
            place, key = node.func.value, node.args[0]
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        place, key = node.value, node.slice
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In):
        place, key = node.comparators[0], node.left
    named = isinstance(place, ast.Name) and place.id in carriers
    text = isinstance(key, ast.Constant) and isinstance(key.value, str)
    return key.value if named and text else None


def _resolve(node: ast.expr, function: _Function) -> _Function | None:
    """What the expression before the brackets of a call is, as far as the source tells."""
    if isinstance(node, ast.Attribute):
        if isinstance(node.value, ast.Call):  # super().method
            return _of_base(node, function)
        if isinstance(node.value, ast.Name) and node.value.id == "self" and function.built:
            return _method(function.built, node.attr, function.built)
        base = _value(node.value, function)
        if inspect.isclass(base):  # Base.__init__(self, **kwargs): self is an argument there
            found = getattr(base, node.attr, None)
            return _Function(found) if inspect.isfunction(found) else None
    found = _value(node, function)
    if inspect.isclass(found):
        return _constructor(found)
    return _Function(found) if callable(found) else None


def _of_base(node: ast.Attribute, function: _Function) -> _Function | None:
    called = node.value
    is_super = isinstance(called, ast.Call) and getattr(called.func, "id", None) == "super"
    if not is_super or function.built is None or function.owner is None:
        return None
    order = function.built.__mro__
    after = order[order.index(function.owner) + 1 :]
    owner = next((base for base in after if node.attr in vars(base)), object)
    return None if owner is object else _method(owner, node.attr, function.built)


def _method(cls: type, name: str, built: type) -> _Function | None:
    owner = next((base for base in cls.__mro__ if name in vars(base)), None)
    if owner is None or not inspect.isfunction(vars(owner)[name]):
        return None
    return _Function(vars(owner)[name], owner, built)


def _value(node: ast.expr, function: _Function) -> Any:
    """A name of the function's module, or an attribute of one."""
    if isinstance(node, ast.Attribute):
        base = _value(node.value, function)
        return None if base is None else getattr(base, node.attr, None)
    if isinstance(node, ast.Name):
        return getattr(function.code, "__globals__", {}).get(node.id)
    return None
