# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints to .pdparams and back: python tools/convert_weights.py SOURCE TARGET

SOURCE is a checkpoint of ISE-ReID, Cluster Contrast or HHCL (.pth, .pt, .pth.tar), TARGET a
.pdparams file for the configs here, or the other way round. Needs PyTorch.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls_ise  # noqa: E402, F401
from ppcls_ise.cli import run  # noqa: E402


def main() -> None:
    from ppcls_ise.torch_weights import convert

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="checkpoint to read (.pth, .pt, .pth.tar or .pdparams)")
    parser.add_argument("target", help="file to write (.pdparams, or one of the others)")
    parser.add_argument(
        "--data-parallel", action="store_true", help="write PyTorch names with module."
    )
    args = parser.parse_args()
    print(convert(args.source, args.target, data_parallel=args.data_parallel))


if __name__ == "__main__":
    run(main)
