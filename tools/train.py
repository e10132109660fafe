# SPDX-License-Identifier: Apache-2.0
"""Train without labels: python tools/train.py -c configs/ISE_market.yaml [-o key=value ...]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls_ise  # noqa: E402
from ppcls_ise.cli import run  # noqa: E402


def main() -> None:
    ppcls_ise.register()
    from ppcls_ise.config import get_config, parse_args
    from ppcls_ise.engine import UnsupervisedEngine

    args = parse_args("Train a person re-identification model without labels.")
    config = get_config(args.config, args.override, profiler_options=args.profiler_options)
    UnsupervisedEngine(config, mode="train").train()


if __name__ == "__main__":
    run(main)
