# SPDX-License-Identifier: Apache-2.0
"""All knowledge of PaddleClas: found, checked, looked up; its training loop's repairs; its keys."""

from ppcls_ise.compat.paddleclas import (
    EnvironmentProblem,
    InputPipelineFailure,
    attribute_dict,
    build_transforms,
    building,
    describe,
    engine_class,
    environment_problem,
    load,
    log_scalar,
    logger,
    output_folder_lacks_arch_name,
    parse_config,
    ppcls_folder,
    precision,
    profiler_problem,
    version,
    weights_home,
)
from ppcls_ise.compat.tables import lookup, names

__all__ = [
    "EnvironmentProblem",
    "InputPipelineFailure",
    "attribute_dict",
    "build_transforms",
    "building",
    "describe",
    "engine_class",
    "environment_problem",
    "load",
    "log_scalar",
    "logger",
    "lookup",
    "names",
    "output_folder_lacks_arch_name",
    "parse_config",
    "ppcls_folder",
    "precision",
    "profiler_problem",
    "version",
    "weights_home",
]
