# SPDX-License-Identifier: Apache-2.0
"""Configuration: PaddleClas's YAML, ``-c`` and ``-o``, and a closed set of keys."""

from ppcls_ise.config.check import check_config
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.config.overrides import config_path, get_config, packaged_configs, parse_value

__all__ = [
    "ClusteringOptions",
    "check_config",
    "config_path",
    "get_config",
    "packaged_configs",
    "parse_value",
]
