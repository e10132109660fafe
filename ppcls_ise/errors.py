# SPDX-License-Identifier: Apache-2.0
"""Errors whose message is meant for the user: what was found, which rule failed, what to change."""

import os


class ReIDError(Exception):
    """Base of all errors that the command-line tools print without a traceback."""


class ConfigError(ReIDError, ValueError):
    """The configuration (YAML or ``-o``) cannot be used as it is."""


class DataError(ReIDError, ValueError):
    """The images or lists on disk cannot be used as they are."""


class WeightsError(ReIDError, ValueError):
    """A weight file is not what the configuration needs."""


class DivergenceError(DataError):
    """Losses, weights or features are no longer finite."""


class InexactSearchError(ReIDError, ValueError):
    """A neighbor search multiplied in less than float32, so its lists may miss neighbors."""


class ExportError(ReIDError, RuntimeError):
    """A network that Paddle cannot turn into a static graph."""


def shown(path: str | os.PathLike[str]) -> str:
    """A path for messages and lists, on one line: what cannot be printed (line breaks, control
    characters, bytes that are no text) appears as an escape such as ``\\n`` or ``\\udcff``."""
    text = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
