# SPDX-License-Identifier: Apache-2.0
"""What the commands share on their command lines."""

import argparse


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """PaddleClas's command line: ``-c CONFIG``, ``-o key=value`` (repeatable), ``-p PROFILER``."""
    add_config_argument(parser)
    parser.add_argument("-p", "--profiler_options", default=None, help="PaddleClas's profiler")


def add_config_argument(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """``-c CONFIG`` and ``-o KEY=VALUE``."""
    parser.add_argument(
        "-c",
        "--config",
        required=default is None,
        default=default,
        help="YAML file, or the name of a packaged one (`ppcls-ise configs`)",
    )
    add_override(parser, "override one key, e.g. -o Global.device=cpu (repeatable)")


def add_override(parser: argparse.ArgumentParser, help: str) -> None:
    """The argument ``-o KEY=VALUE``."""
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="KEY=VALUE", help=help
    )
