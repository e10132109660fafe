# SPDX-License-Identifier: Apache-2.0
"""``convert``: PyTorch checkpoints to .pdparams and back.

SOURCE is a checkpoint (.pth, .pt, .pth.tar) of ISE-ReID, Cluster Contrast, HHCL, DINO or
TransReID-SSL, or an ImageNet network of torchvision or IBN-Net, TARGET a .pdparams file for the
configs here; or the other way round. PyTorch is not needed.
"""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="checkpoint to read (.pth, .pt, .pth.tar or .pdparams)")
    parser.add_argument("target", help="file to write (.pdparams, or one of the others)")
    parser.add_argument(
        "--data-parallel", action="store_true", help="write PyTorch names with module."
    )
    parser.add_argument("--names", action="store_true", help="print what became of every name")


def command(args: argparse.Namespace) -> str:
    from ppcls_ise.weights.conversion import convert

    report = convert(args.source, args.target, data_parallel=args.data_parallel)
    return "\n".join([*(report.lines() if args.names else []), f"{args.target}: {report}"])
