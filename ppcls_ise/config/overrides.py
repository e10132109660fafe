# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's YAML, read with ``-o`` overrides and checked."""

import ast
import copy
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from ppcls_ise import compat, registry
from ppcls_ise.compat import Config
from ppcls_ise.config.aliases import Aliases, Place
from ppcls_ise.config.check import check_config, loaders_of
from ppcls_ise.errors import ConfigError, shown

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel, configs are inside the package; in a checkout, beside it.
_FOLDER = next(
    folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()
)
_LITERALS = (ast.Constant, ast.UnaryOp, ast.List, ast.Tuple, ast.Dict, ast.Set)
_PLAIN = (str, int, float, bool, type(None))
_WORDS = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
    **dict.fromkeys(("null", "none", "~"), None),
}


def get_config(
    path: str,
    overrides: Iterable[str] = (),
    *,
    profiler_options: Any = None,
    mode: str = "train",
) -> Config:
    """Read a YAML file, apply ``-o`` overrides and check every key.

    Args:
        path: a YAML file in PaddleClas's sections, or the name of a packaged one.
        overrides: ``key.key.index=value``; values are literals (`parse_value`), never executed.
            What the file writes once (an anchor and its aliases) is changed everywhere.
        profiler_options: passed through to PaddleClas.
        mode: ``train``, ``eval`` or ``export``, what the configuration is for; sections that it
            does not build are not checked.

    Returns:
        PaddleClas's ``AttrDict``.

    Raises:
        ConfigError: no such file, no YAML, a malformed override, or a key that nothing reads.
    """
    path = str(config_path(path))
    try:
        aliases = Aliases(path)
        config = _apart(compat.parse_config(path))
    except (yaml.YAMLError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{shown(path)} is no YAML file of sections: {error}") from error
    changed: dict[str, str] = {}
    for option in overrides:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise ConfigError(f"-o {option}: an override has the form key.key=value")
        for place in _override_everywhere(
            config, key.split("."), parse_value(value), option, aliases
        ):
            changed[".".join(place[: max(2, len(place) - 2)])] = option
    config["profiler_options"] = profiler_options
    registry.import_modules(_imports(config))
    try:
        config = check_config(config, mode=mode)
    except ConfigError as error:
        for changed_place, option in changed.items():
            if changed_place in str(error):
                raise ConfigError(
                    f"{error}. This is -o {option}: the file writes both values once, so that "
                    "an override acts on both"
                ) from error
        raise
    _fill_image_root(config)
    return config


def config_path(name: str) -> Path:
    """The file of that name; else the packaged config of that name, with or without ``.yaml``.

    Raises:
        ConfigError: there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    packaged = _FOLDER / f"{name.removesuffix('.yaml')}.yaml"
    if os.sep not in name and packaged.is_file():
        return packaged
    raise ConfigError(
        f"there is no config file {shown(name)} (-c), and no packaged config of that name: "
        "`ppcls-ise configs` lists them"
    )


def packaged_configs() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def parse_value(text: str) -> Any:
    """The value of an override: a literal, otherwise the text itself. Nothing is evaluated.

    Literals are numbers, quoted texts, lists ``[…]``, tuples, dictionaries ``{…}``, and ``true``,
    ``null`` and the like in Python's or YAML's spelling. Inside of lists and dictionaries other
    plain words are texts: ``{name: SGD, nesterov: true}``.

    Raises:
        ConfigError: it has the brackets of a list or dictionary, but is none.
    """
    if text.strip().lower() in _WORDS:
        return _WORDS[text.strip().lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about texts that are no literals
            tree = ast.parse(text.strip(), mode="eval")
        if isinstance(tree.body, _LITERALS):
            return ast.literal_eval(_Words().visit(tree))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        if text.strip()[:1] + text.strip()[-1:] in ("[]", "{}"):
            raise ConfigError(
                f"-o …={shown(text[:80])}: this is no list or dictionary of "
                "literals; put texts in it in quotes"
            ) from error
    return text


class _Words(ast.NodeTransformer):
    """Words inside of a list or dictionary, as constants."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Constant(_WORDS.get(node.id.lower(), node.id)), node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, _PLAIN):
            raise ValueError("a configuration has no such values")
        return node

    def visit_Set(self, node: ast.Set) -> ast.AST:
        raise ValueError("a configuration has no sets")


def _apart(value: Any) -> Any:
    """A copy without shared lists: what is shared is known by its places (`Aliases`)."""
    if isinstance(value, dict):
        return type(value)((key, _apart(item)) for key, item in value.items())
    return [_apart(item) for item in value] if isinstance(value, list) else value


def _override_everywhere(
    config: Config, keys: list[str], value: Any, option: str, aliases: Aliases
) -> Iterator[Place]:
    """`_override` at ``keys`` and at all aliases, also of what is inside of ``value``.

    Yields:
        The other places that were changed.
    """
    _override(config, keys, value, option)
    pending: list[tuple[Place, Any]] = [(_place(keys), value)]
    while pending:
        place, item = pending.pop()
        for part, rest in aliases.of(place):
            if _has(config, part):  # an earlier override may have taken it away
                _override(config, [*part, *rest], copy.deepcopy(item), option)
                yield (*part, *rest)
        if isinstance(item, dict):
            pending += [((*place, str(key)), inner) for key, inner in item.items()]
        elif isinstance(item, list):
            pending += [((*place, str(index)), inner) for index, inner in enumerate(item)]


def _place(keys: list[str]) -> Place:
    return tuple(str(int(key)) if key.isdecimal() else key for key in keys)


def _has(config: Config, place: Place) -> bool:
    node: Any = config
    for key in place:
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            return False
    return True


def _override(config: Config, keys: list[str], value: Any, option: str) -> None:
    node: Any = config
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(node, list):
            if not key.isdecimal() or int(key) >= len(node):
                raise ConfigError(
                    f"-o {option}: {'.'.join(keys[:position])} is a list of {len(node)} entries, "
                    f"'{key}' is not one of 0..{len(node) - 1}"
                )
            place: Any = int(key)
        elif isinstance(node, dict):
            place = key
            if not last and node.get(key) is None:
                node[key] = compat.attribute_dict({})
        else:
            raise ConfigError(
                f"-o {option}: {'.'.join(keys[:position])} is {node!r}, it has no key '{key}'"
            )
        if last:
            node[place] = compat.attribute_dict(value) if isinstance(value, dict) else value
        else:
            node = node[place]


def _imports(config: Config) -> list[str]:
    options = config.get("Global")
    modules = (options.get("imports") if isinstance(options, dict) else None) or []
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        raise ConfigError(f"Global.imports has to be a list of module names, got {modules!r}")
    return modules


def _fill_image_root(config: Config) -> None:
    """Give every data set that names no ``image_root`` the one of ``Global``."""
    for path, part in loaders_of(config.get("DataLoader") or {}):
        if not isinstance(part, dict) or not isinstance(part.get("dataset"), dict):
            continue  # not looked at in this mode
        if isinstance(part["dataset"].get("image_root", ""), str):
            own = part["dataset"].get("image_root")
            part["dataset"] |= {"image_root": str(Path(own).expanduser())} if own else {}
        else:
            raise ConfigError(f"{path}.dataset.image_root has to be a path")
        if "image_root" not in part["dataset"]:
            if not config["Global"].get("image_root"):
                raise ConfigError("set Global.image_root to the folder that holds the data set")
            part["dataset"]["image_root"] = config["Global"]["image_root"]
