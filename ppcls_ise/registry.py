# SPDX-License-Identifier: Apache-2.0
"""``register()``: the plugin's components, and a user's, become known to PaddleClas."""

import importlib
import traceback
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
        EnvironmentProblem: PaddlePaddle or PaddleClas is missing or unsupported.
        ConfigError: PaddleClas has another component of the same name.
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
    tables.drop_card_count_warning()
    training_loop.repair_step_log()
    training_loop.repair_sgd()
    return None


def import_modules(modules: Iterable[str]) -> None:
    """Import a user's modules (``Global.imports``) and make what they register known.

    Raises:
        ConfigError: one cannot be imported, or takes a name that PaddleClas or the plugin has;
            names it and the reason.
    """
    register()  # ours first, so that a clash of names is blamed on the newcomer
    for module in modules:
        try:
            importlib.import_module(module)
        except ConfigError:
            raise
        except Exception as error:  # whatever a user's module does
            raise ConfigError(
                f"Global.imports: {module} cannot be imported: {_reason(module, error)}"
            ) from error
    register()


def _reason(module: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return (
            f"there is no module {error.name}. Install its package, or name the folder that holds "
            "it in the environment variable PYTHONPATH (the current one: PYTHONPATH=$PWD)"
        )
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno})"
