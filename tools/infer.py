# SPDX-License-Identifier: Apache-2.0
"""Features of images: python tools/infer.py --model FOLDER --images FOLDER --out features.npz

The model is a folder of tools/export_model.py, or a checkpoint (-c CONFIG
-o Global.pretrained_model=WEIGHTS). PaddleClas's names for the flags work too:
-o Global.rec_inference_model_dir=FOLDER -o Global.infer_imgs=FOLDER -o Global.use_gpu=False ...
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls_ise  # noqa: E402
from ppcls_ise.cli import run  # noqa: E402


def main() -> None:
    ppcls_ise.register()
    from ppcls_ise.infer import infer
    from ppcls_ise.inference_options import add_arguments

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--out", default="features.npz", help=".npz or .csv (default: %(default)s)")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read"
    )
    parser.add_argument("--benchmark", action="store_true", help="print images per second")
    print(infer(parser.parse_args()))


if __name__ == "__main__":
    run(main)
