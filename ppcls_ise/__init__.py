# SPDX-License-Identifier: Apache-2.0
"""Unsupervised person re-identification (ISE and its relatives) as a plugin of PaddleClas.

``ppcls_ise.register()`` makes the plugin's classes known to PaddleClas. ``ppcls_ise.clustering``,
``ppcls_ise.metrics`` and ``ppcls_ise.retrieval`` work on plain arrays and need neither Paddle nor
PaddleClas.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - pip is not the only way here
    raise ImportError(
        "ppcls_ise needs Python 3.10 or later, and this is Python {}.{}: make an environment with "
        "a newer one".format(*sys.version_info[:2])
    )

# zlib has to be loaded before Paddle: libpaddle 2.6 exports zlib symbols of its own, and a zlib
# that is loaded after it binds to them in part and crashes on first use.
import zlib  # noqa: F401, I001

import importlib
import logging
import warnings
from typing import Any

from ppcls_ise.utils import threads  # noqa: F401 - has to be first, before Paddle
from ppcls_ise.compat import environment_problem
from ppcls_ise.registry import register

__version__ = "0.2.0"

_PACKAGES = (
    "backbones",
    "clustering",
    "config",
    "data",
    "deploy",
    "distributed",
    "engine",
    "heads",
    "inference",
    "layers",
    "losses",
    "memory",
    "metrics",
    "necks",
    "retrieval",
    "synthetic",
    "visualization",
    "weights",
)

# Classes for use without a training.
_CLASSES = {"Extractor": "deploy.extractor", "GallerySearch": "retrieval.gallery_search"}

__all__ = ["__version__", "register", *_PACKAGES, *_CLASSES]


def __getattr__(name: str) -> Any:
    # Packages are imported on first use, so that the Paddle-free ones need no Paddle.
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _CLASSES:
        return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# faiss says at every start which instruction sets it was and was not built for.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)

_problem = environment_problem()
if _problem:
    warnings.warn(
        f"{_problem} Only ppcls_ise.clustering, .metrics and .retrieval can be used until then.",
        RuntimeWarning,
        stacklevel=2,
    )
