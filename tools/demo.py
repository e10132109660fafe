# SPDX-License-Identifier: Apache-2.0
"""Train on generated images and show the result: python tools/demo.py"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ppcls_ise  # noqa: E402
from ppcls_ise.cli import run  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description="ISE on a data set that it makes itself.")
    parser.add_argument("-c", "--config", default=str(ROOT / "configs" / "ISE_synthetic.yaml"))
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images")
    args = parser.parse_args()
    ppcls_ise.register()
    from ppcls_ise.demo import run_demo

    print(run_demo(args.config, args.override, seed=args.seed))


if __name__ == "__main__":
    run(main)
