# SPDX-License-Identifier: Apache-2.0
"""Export for inference: python tools/export_model.py -c CONFIG -o Global.pretrained_model=WEIGHTS

Writes inference.json (.pdmodel on Paddle 2), inference.pdiparams and inference.yml into
Global.save_inference_dir, and compares the features with the checkpoint's.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls_ise  # noqa: E402
from ppcls_ise.cli import run  # noqa: E402


def main() -> None:
    ppcls_ise.register()
    from ppcls_ise.config import argument_parser, get_config
    from ppcls_ise.export import export_model

    parser = argument_parser("Export the re-identification feature as a static model.")
    parser.add_argument(
        "--allow-random-weights", action="store_true", help="export even without weights"
    )
    parser.add_argument(
        "--no-normalize", action="store_true", help="features as the neck gives them"
    )
    parser.add_argument("--onnx", action="store_true", help="also write inference.onnx")
    args = parser.parse_args()
    report = export_model(
        get_config(args.config, args.override, profiler_options=args.profiler_options),
        allow_random_weights=args.allow_random_weights,
        normalize=not args.no_normalize,
        onnx=args.onnx,
    )
    print("\n".join(report))


if __name__ == "__main__":
    run(main)
