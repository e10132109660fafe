# SPDX-License-Identifier: Apache-2.0
"""Whether keys are known to what takes them, and values of the right kind."""

import difflib
import inspect
import math
import re
from collections.abc import Iterable
from typing import Any

from ppcls_ise.compat import keys
from ppcls_ise.compat.signatures import accepted_keys
from ppcls_ise.errors import ConfigError

_KINDS = {
    "int": (int, "a whole number"),
    "float": (int | float, "a number"),
    "str": (str, "a text"),
    "bool": (bool, "True or False"),
    "None": (type(None), "null"),
    "numbers": (list | tuple, "a list of whole numbers"),
}
# Arguments that PaddleClas fills in itself, or that come from another section.
_FILLED_IN = "learning_rate epochs step_each_epoch dataset image_root cls_label_path".split()
_HARMLESS = re.compile(r"[\w ./+-]*", re.ASCII)


def refuse_expressions(value: Any, path: str) -> None:
    """Refuse texts that could do something where PaddleClas evaluates them, which it does with
    some options (``NormalizeImage.scale: 1.0/255.0``). Without brackets nothing is called."""
    if isinstance(value, dict):
        for key, item in value.items():
            refuse_expressions(str(key), f"{path}.{key}")
            if key != "pretrained":  # a path or an address, never evaluated
                refuse_expressions(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            refuse_expressions(item, f"{path}.{i}")
    elif isinstance(value, str) and not _HARMLESS.fullmatch(value):
        raise ConfigError(
            f"{path} has to be a word, a number or a fraction, got {value!r}: PaddleClas could "
            "execute it"
        )


def check_types(options: Any, function: Any, path: str) -> None:
    """Hold options against the annotations of what takes them or, as PaddleClas has none, against
    the kind of the default."""
    parameters = accepted_keys(function)
    for key, value in options.items():
        parameter = parameters.get(key)
        if parameter is None:
            continue
        annotation, default = parameter.annotation, parameter.default
        if annotation is not inspect.Parameter.empty:
            text = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
            kinds = ["numbers" if "[int" in kind else kind for kind in text.split(" | ")]
        elif isinstance(default, bool):
            kinds = ["bool", "None"]
        elif isinstance(default, int | float):
            kinds = ["float", "None"]
        else:
            continue
        check_value(value, kinds, f"{path}.{key}")


def check_value(value: Any, kinds: list[str], path: str) -> None:
    if not set(kinds) <= set(_KINDS):
        return
    fits = any(
        isinstance(value, _KINDS[kind][0]) and (kind == "bool" or not isinstance(value, bool))
        for kind in kinds
    )
    if isinstance(value, list | tuple) and any(type(number) is not int for number in value):
        fits = False
    if not fits:
        words = " or ".join(_KINDS[kind][1] for kind in kinds)
        raise ConfigError(f"{path} has to be {words}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path} has to be finite, got {value!r}")


def unknown(name: Any, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)
    return f"PaddleClas and the plugin know no {name!r}. Did you mean {nearest[0]}?"


def parameters_of(function: Any) -> list[str]:
    """Keys that a class or function takes from a configuration."""
    return [name for name in accepted_keys(function) if name not in ("dataset", "engine")]


def require_parameters(options: Any, function: Any, path: str) -> None:
    missing = [
        name
        for name, parameter in accepted_keys(function).items()
        if parameter is not None
        and parameter.default is inspect.Parameter.empty
        and name not in options
        and name not in _FILLED_IN
    ]
    if missing:
        raise ConfigError(f"{path} needs {' and '.join(f'{path}.{name}' for name in missing)}")


def require_known(options: Any, allowed: Iterable[str], path: str) -> None:
    if not isinstance(options, dict):
        raise ConfigError(f"{path or 'the config'} has to be a section of keys, got {options!r}")
    allowed = sorted(set(allowed))
    for key in options:
        full = f"{path}.{key}" if path else str(key)
        if key in allowed or keys.asks_for_nothing(full, options[key]):
            continue
        if reason := keys.unsupported(full):
            raise ConfigError(
                f"{full} is a key of PaddleClas's that the plugin does not support: {reason}"
            )
        nearest = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.0)
        raise ConfigError(
            f"nothing reads the key {full}. "
            f"Did you mean {f'{path}.{nearest[0]}' if path else nearest[0]}?"
            if nearest
            else f"nothing reads the key {full}"
        )
