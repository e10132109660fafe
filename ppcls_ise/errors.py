# SPDX-License-Identifier: Apache-2.0
"""Errors whose message is meant for the user: what was found, which rule failed, what to change."""


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


class ExportError(ReIDError, RuntimeError):
    """A network that Paddle cannot turn into a static graph."""
