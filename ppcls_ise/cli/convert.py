# SPDX-License-Identifier: Apache-2.0
"""``convert``: PyTorch checkpoints to .pdparams and back. Needs PyTorch.

SOURCE is a checkpoint of ISE-ReID, Cluster Contrast or HHCL (.pth, .pt, .pth.tar), TARGET a
.pdparams file for the configs here, or the other way round.
"""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="checkpoint to read (.pth, .pt, .pth.tar or .pdparams)")
    parser.add_argument("target", help="file to write (.pdparams, or one of the others)")
    parser.add_argument(
        "--data-parallel", action="store_true", help="write PyTorch names with module."
    )


def command(args: argparse.Namespace) -> str:
    from ppcls_ise.weights.conversion import convert

    return str(convert(args.source, args.target, data_parallel=args.data_parallel))
