# SPDX-License-Identifier: Apache-2.0
"""A configuration with every default of the plugin written out, as it can be read again."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.utils.components import components

_GLOBAL = {"seed": 0, "feature_precision": "fp32", "to_static": False}
_PLAIN = (bool, int, float, str, type(None))
_OTHERWISE = ("image_root", "cls_label_path", "transform_ops")  # never left to a default


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy, of plain dictionaries and lists, with the defaults of the section Clustering, of
    Global and of all components of the plugin. PaddleClas's own components keep what they have.

    Args:
        config: from `ppcls_ise.config.get_config`.
    """
    whole = _plain(config)
    whole.pop("profiler_options", None)  # of the command line, not of a file
    whole["Global"] = {**whole["Global"], **_missing(_GLOBAL, whole["Global"])}
    if whole.get("Clustering"):
        whole["Clustering"] = asdict(ClusteringOptions(**whole["Clustering"]))
    for part in ("Backbone", "Neck", "Head"):
        _fill(part.lower(), whole["Arch"].get(part))
    for kind in ("loss", "metric"):
        for entries in (whole.get(kind.title()) or {}).values():
            _fill_list(kind, entries)
    loaders = dict(whole.get("DataLoader") or {})
    for loader in (loaders.get("Train"), *(loaders.get("Eval") or {}).values()):
        for kind in ("dataset", "sampler"):
            _fill(kind, (loader or {}).get(kind))
        _fill_list("transform", ((loader or {}).get("dataset") or {}).get("transform_ops"))
    return _plain(whole)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _missing(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in defaults.items() if options.get(key) is None}


def _fill(kind: str, options: Any) -> None:
    """Add the defaults of the component that ``options["name"]`` names, if it is the plugin's."""
    if isinstance(options, dict) and options.get("name") in components(kind):
        options.update(_defaults(components(kind)[options["name"]], options))


def _fill_list(kind: str, entries: Any) -> None:
    """The same for a list of ``{name: options}``."""
    for entry in entries if isinstance(entries, list) else []:
        for name, options in entry.items() if isinstance(entry, dict) else []:
            if name in components(kind):
                entry[name] = {
                    **(options or {}),
                    **_defaults(components(kind)[name], options or {}),
                }


def _defaults(component: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    maker = component.__init__ if inspect.isclass(component) else component
    if not inspect.isfunction(maker) or maker.__module__.startswith("paddle"):
        return {}  # of a class without arguments of its own: those of Paddle's Layer
    parameters = inspect.signature(component).parameters.items()
    return {
        name: list(p.default) if isinstance(p.default, tuple) else p.default
        for name, p in parameters
        if name not in options and name not in _OTHERWISE and _is_plain(p.default)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)
