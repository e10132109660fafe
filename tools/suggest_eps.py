# SPDX-License-Identifier: Apache-2.0
"""Which Clustering.eps to take: python tools/suggest_eps.py -c CONFIG -o KEY=VALUE

Clusters, outliers and stability over a range of eps, from one graph and without labels. The images
are the training images of the configuration, or --features names a file of features.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls_ise  # noqa: E402
from ppcls_ise.cli import run  # noqa: E402


def main() -> None:
    ppcls_ise.register()
    from ppcls_ise.config import get_config
    from ppcls_ise.suggest_eps import steps, suggest_eps

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config", help="YAML file, see configs/")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--features", help=".npz with features [N, D], or .npy")
    parser.add_argument(
        "--eps",
        nargs=3,
        type=float,
        default=(0.2, 0.8, 0.05),
        metavar=("LOWEST", "HIGHEST", "STEP"),
        help="default: 0.2 0.8 0.05",
    )
    parser.add_argument("--plot", help="PNG file to write")
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    config = get_config(args.config, args.override) if args.config else None
    print(suggest_eps(config, args.features, steps(*args.eps), plot=args.plot, json_file=args.json))


if __name__ == "__main__":
    run(main)
