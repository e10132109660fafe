# SPDX-License-Identifier: Apache-2.0
"""``configs``: List the packaged configs, or print one to edit."""

import argparse

from ppcls_ise.config import config_path, packaged_configs


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="print this one, e.g. ISE_market")


def command(args: argparse.Namespace) -> str:
    if args.name:
        return config_path(args.name).read_text(encoding="utf-8").rstrip()
    return "\n".join(packaged_configs())
