# SPDX-License-Identifier: Apache-2.0
"""Where PaddleClas looks names up, and how the plugin's classes get there."""

import importlib.util
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ppcls_ise.compat.paddleclas import load, logger
from ppcls_ise.errors import ConfigError

# PaddleClas resolves a name by ``eval`` or ``getattr`` in one module per kind, so a class is
# registered by making it an attribute of that module.
_TABLES = {
    "dataset": "ppcls.data",
    "sampler": "ppcls.data",
    "transform": "ppcls.data.preprocess",
    "backbone": "ppcls.arch",
    "loss": "ppcls.loss",
    "metric": "ppcls.metric",
    "optimizer": "ppcls.optimizer.optimizer",
    "lr": "ppcls.optimizer.learning_rate",
}

# Necks and heads that PaddleClas has itself; it accepts no others.
GEARS = (
    "ArcMargin CosMargin CircleMargin FC VehicleNeck Tanh BNNeck AdaMargin FRFNHead "
    "MetaBNNeck MultiHeadAttention"
).split()


def lookup(kind: str, name: str) -> Any:
    """The class or function that PaddleClas would build for ``name``; None when it knows none.

    Args:
        kind: one of dataset, sampler, transform, backbone, loss, metric, optimizer, lr.
    """
    found = getattr(load(_TABLES[kind]), name, None)
    return found if inspect.isclass(found) or inspect.isfunction(found) else None


def names(kind: str) -> list[str]:
    """All names of the module in which PaddleClas looks up ``kind``; see `lookup`."""
    return dir(load(_TABLES[kind]))


def put(kind: str, classes: Mapping[str, Callable[..., Any]]) -> None:
    """Put classes where PaddleClas looks up names of ``kind``; see `lookup`.

    Raises:
        ConfigError: PaddleClas has something else of that name.
    """
    module = load(_TABLES[kind])
    for name, cls in classes.items():
        taken = getattr(module, name, None)
        if taken is not None and not getattr(taken, "of_ppcls_ise", False):
            raise _taken(kind, name, module.__name__, cls)
        cls.of_ppcls_ise = True  # type: ignore[attr-defined]
        setattr(module, name, cls)


def _taken(kind: str, name: str, place: str, cls: Callable[..., Any]) -> ConfigError:
    return ConfigError(
        f"PaddleClas has a {kind} {name} itself ({place}), and {cls.__module__} registers another "
        "one: give yours another name"
    )


def open_gear_list(gears: Mapping[str, Callable[..., Any]]) -> None:
    """Let the necks and heads of ``gears``, which may grow later, be built.

    ``ppcls.arch.gears.build_gear`` accepts the names of a local list only, in 2.4.2 and develop.
    ``RecModel`` calls it as a global of ``ppcls.arch``, so that is the name that is wrapped. Not
    needed once build_gear takes registered names.

    Raises:
        ConfigError: PaddleClas has a neck or head of that name.
    """
    for name in GEARS:
        if name in gears:
            raise _taken("neck or head", name, "ppcls.arch.gears", gears[name])
    arch: Any = load("ppcls.arch")
    closed = arch.build_gear
    if getattr(closed, "opened_by_ppcls_ise", False):
        return

    def build_gear(config: dict[str, Any]) -> Any:
        if config["name"] not in gears:
            return closed(config)
        arguments = {key: value for key, value in config.items() if key != "name"}
        return gears[config["name"]](**arguments)

    build_gear.opened_by_ppcls_ise = True  # type: ignore[attr-defined]
    arch.build_gear = build_gear


def replace_loading(paddle_module: Any, download: Callable[..., str]) -> None:
    """Take ``paddle.load``, which runs what a file says, out of the modules that load weights, and
    the download without a checksum.

    Args:
        paddle_module: what they use for the module ``paddle``.
        download: what they use for ``get_weights_path_from_url``.
    """
    modules = ["ppcls.utils.save_load"]
    load("ppcls.arch")
    if importlib.util.find_spec("ppcls.arch.backbone.model_zoo.cae"):  # develop
        modules.append("ppcls.arch.backbone.model_zoo.cae")
    for name in modules:
        module: Any = load(name)
        module.paddle = paddle_module
        module.get_weights_path_from_url = download


def drop_card_count_warning() -> None:
    """PaddleClas warns at every start that its recipes are for 4 cards; the plugin's are not."""
    logger().addFilter(_is_not_about_cards)


def _is_not_about_cards(record: logging.LogRecord) -> bool:
    return "The training strategy provided by PaddleClas" not in record.getMessage()
