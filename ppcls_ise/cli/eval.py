# SPDX-License-Identifier: Apache-2.0
"""``eval``: Evaluate a person re-identification model: mAP, mINP, CMC."""

import argparse

from ppcls_ise.cli.arguments import add_config_arguments
from ppcls_ise.registry import register


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)


def command(args: argparse.Namespace) -> str:
    register()
    from ppcls_ise.config import get_config
    from ppcls_ise.engine import UnsupervisedEngine

    config = get_config(
        args.config, args.override, profiler_options=args.profiler_options, mode="eval"
    )
    engine = UnsupervisedEngine(config, mode="eval")
    engine.require_weights()
    engine.eval()
    result = engine.last_result
    assert result is not None
    print(result.table())
    result.require_valid_queries()
    return ""
