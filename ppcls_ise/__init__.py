# SPDX-License-Identifier: Apache-2.0
"""Unsupervised person re-identification (ISE and its relatives) as a plugin of PaddleClas.

``ppcls_ise.register()`` makes the plugin's classes known to PaddleClas. ``ppcls_ise.clustering``
and ``ppcls_ise.metrics`` work on plain arrays and need neither Paddle nor PaddleClas.
"""

# zlib has to be loaded before Paddle: libpaddle 2.6 exports zlib symbols of its own, and a zlib
# that is loaded after it binds to them in part and crashes on first use.
import zlib  # noqa: F401, I001

import importlib
import warnings
from types import ModuleType

from ppcls_ise import plugin, threads  # noqa: F401 - threads has to be first, before Paddle

__version__ = "0.1.0"

_SUBMODULES = (
    "backbones",
    "callbacks",
    "clustering",
    "config",
    "data",
    "engine",
    "features",
    "heads",
    "layers",
    "losses",
    "memory",
    "metrics",
    "necks",
    "weights",
)

# Classes for use without a training.
_CLASSES = {"Extractor": "extractor", "GallerySearch": "gallery_search"}

__all__ = ["__version__", "register", *_SUBMODULES, *_CLASSES]


def register() -> None:
    """Make the plugin's classes known to PaddleClas. Calling it again changes nothing.

    Raises:
        ppcls_ise.plugin.EnvironmentProblem: PaddlePaddle or PaddleClas is missing or unsupported;
            the message says what to install.
    """
    plugin.register()


def __getattr__(name: str) -> ModuleType | type:
    # Submodules are imported on first use, so that the Paddle-free ones need no Paddle.
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _CLASSES:
        return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_problem = plugin.environment_problem()
if _problem:
    warnings.warn(
        f"{_problem} Only ppcls_ise.clustering and ppcls_ise.metrics can be used until then.",
        RuntimeWarning,
        stacklevel=2,
    )
