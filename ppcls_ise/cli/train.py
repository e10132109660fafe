# SPDX-License-Identifier: Apache-2.0
"""``train``: Train a person re-identification model without labels."""

import argparse

from ppcls_ise.cli.arguments import add_config_arguments
from ppcls_ise.registry import register


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)


def command(args: argparse.Namespace) -> None:
    register()
    from ppcls_ise.cli.report import report_and_next_steps
    from ppcls_ise.config import get_config
    from ppcls_ise.engine import UnsupervisedEngine

    config = get_config(args.config, args.override, profiler_options=args.profiler_options)
    engine = UnsupervisedEngine(config, mode="train")
    engine.train()
    report_and_next_steps(engine)
