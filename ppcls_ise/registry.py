# SPDX-License-Identifier: Apache-2.0
"""``register()``: the plugin's components, and a user's, become known to PaddleClas."""

import importlib
from collections import ChainMap
from collections.abc import Callable, Iterable
from typing import Any

from ppcls_ise import compat, utils
from ppcls_ise.compat import tables, training_loop
from ppcls_ise.errors import ConfigError
from ppcls_ise.utils.components import KINDS, components

# Packages whose import fills the tables.
_PACKAGES = ("backbones", "data", "heads", "losses", "metrics", "necks")


def register(kind: str | None = None) -> Callable[[Any], Any] | None:
    """Make the plugin's components known to PaddleClas; or, as a decorator, one more.

    ``register()`` puts all components where PaddleClas looks names up. Calling it again adds those
    that were registered since. ``@register("head")`` is `ppcls_ise.utils.components.register`.

    Raises:
        EnvironmentProblem: PaddlePaddle or PaddleClas is missing or unsupported, or has another
            component of the same name; the message says what to do.
    """
    if kind is not None:
        return utils.components.register(kind)
    compat.load()
    for package in _PACKAGES:
        importlib.import_module(f"ppcls_ise.{package}")
    from ppcls_ise.weights.paddle_load import PaddleWithoutUnpickling, checked_download

    for each in KINDS:
        if each not in ("neck", "head"):
            tables.put(each, components(each))
    tables.open_gear_list(ChainMap(components("neck"), components("head")))  # type: ignore[arg-type]
    tables.replace_loading(PaddleWithoutUnpickling(), checked_download)
    tables.repair_sgd()
    tables.drop_card_count_warning()
    training_loop.repair_step_log()
    return None


def import_modules(modules: Iterable[str]) -> None:
    """Import a user's modules (``Global.imports``) and make what they register known.

    Raises:
        ConfigError: one cannot be imported; names it and the reason.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ConfigError:
            raise
        except Exception as error:  # whatever a user's module does
            raise ConfigError(
                f"Global.imports: {module} cannot be imported: {type(error).__name__}: {error}. A "
                "module of the current folder is found where PYTHONPATH names that folder"
            ) from error
    register()
