# SPDX-License-Identifier: Apache-2.0
"""All knowledge of PaddleClas: found, checked, looked up; its training loop's repairs; its keys."""

from ppcls_ise.compat.paddleclas import (
    Config,
    EnvironmentProblem,
    InputPipelineFailure,
    attribute_dict,
    build_transforms,
    describe,
    engine_class,
    environment_problem,
    is_host_code,
    load,
    log_scalar,
    logger,
    output_folder_lacks_arch_name,
    parse_config,
    ppcls_folder,
    precision,
    version,
    weights_home,
)
from ppcls_ise.compat.tables import lookup, names

__all__ = [
    "Config",
    "EnvironmentProblem",
    "InputPipelineFailure",
    "attribute_dict",
    "build_transforms",
    "describe",
    "engine_class",
    "environment_problem",
    "is_host_code",
    "load",
    "log_scalar",
    "logger",
    "lookup",
    "names",
    "output_folder_lacks_arch_name",
    "parse_config",
    "ppcls_folder",
    "precision",
    "version",
    "weights_home",
]
