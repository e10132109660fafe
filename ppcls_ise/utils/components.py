# SPDX-License-Identifier: Apache-2.0
"""The tables of components, which classes enter by a decorator beside their definition.

    from ppcls_ise.utils.components import register

    @register("head")
    class MyHead(MemoryHead): ...

The YAML then names the class. `ppcls_ise.register` hands the tables over to PaddleClas.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ppcls_ise.errors import ConfigError

KINDS = ("backbone", "neck", "head", "loss", "dataset", "sampler", "transform", "metric")

Component = TypeVar("Component", bound=Callable[..., Any])

_TABLES: dict[str, dict[str, Callable[..., Any]]] = {kind: {} for kind in KINDS}
# PaddleClas builds both by one function, so they share their names.
_SHARED = {"neck": "head", "head": "neck"}


def register(kind: str) -> Callable[[Component], Component]:
    """Decorator: make a class, or a function that builds one, known to the YAML by its name.

    Args:
        kind: one of `KINDS`.

    Raises:
        ConfigError: no such kind, or another class has the name (necks and heads share theirs).
    """
    if kind not in _TABLES:
        raise ConfigError(
            f"nothing of the kind {kind!r} can be registered, only {', '.join(KINDS)}"
        )

    def enter(cls: Component) -> Component:
        name = cls.__name__
        there = _TABLES[kind].get(name) or _TABLES[_SHARED.get(kind, kind)].get(name) or cls
        if (there.__module__, there.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigError(
                f"{cls.__module__} registers a {kind} {name}, and {there.__module__} has "
                "one of that name already: give yours another name"
            )
        _TABLES[kind][name] = cls  # a module that is loaded anew
        return cls

    return enter


def components(kind: str) -> Mapping[str, Callable[..., Any]]:
    """Name -> class of all components of that kind; a view that grows with them."""
    return MappingProxyType(_TABLES[kind])
