# SPDX-License-Identifier: Apache-2.0
"""Evaluate weights: python tools/eval.py -c CONFIG -o Global.pretrained_model=WEIGHTS"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls_ise  # noqa: E402
from ppcls_ise.cli import run  # noqa: E402


def main() -> None:
    ppcls_ise.register()
    from ppcls_ise.config import get_config, parse_args
    from ppcls_ise.engine import UnsupervisedEngine

    args = parse_args("Evaluate a person re-identification model: mAP, mINP, CMC.")
    config = get_config(args.config, args.override, profiler_options=args.profiler_options)
    engine = UnsupervisedEngine(config, mode="eval")
    engine.require_weights()
    engine.eval()
    print(engine.last_result.table())
    engine.last_result.require_valid_queries()


if __name__ == "__main__":
    run(main)
