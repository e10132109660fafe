# SPDX-License-Identifier: Apache-2.0
"""``export``: Export the re-identification feature as a static model.

Writes inference.json (.pdmodel on Paddle 2), inference.pdiparams and inference.yml into
Global.save_inference_dir, and compares the features with the checkpoint's.
"""

import argparse

from ppcls_ise.cli.arguments import add_config_arguments
from ppcls_ise.registry import register


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--allow-random-weights", action="store_true", help="export even without weights"
    )
    parser.add_argument(
        "--no-normalize", action="store_true", help="features as the neck gives them"
    )
    parser.add_argument("--onnx", action="store_true", help="also write inference.onnx")


def command(args: argparse.Namespace) -> str:
    register()
    from ppcls_ise.config import get_config
    from ppcls_ise.deploy.export import export_model

    report = export_model(
        get_config(
            args.config, args.override, profiler_options=args.profiler_options, mode="export"
        ),
        allow_random_weights=args.allow_random_weights,
        normalize=not args.no_normalize,
        onnx=args.onnx,
    )
    return "\n".join(report)
