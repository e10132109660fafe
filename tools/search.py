# SPDX-License-Identifier: Apache-2.0
"""Search a gallery of images: python tools/search.py COMMAND GALLERY ...

    search.py build people.gallery --model FOLDER --images FOLDER
    search.py query people.gallery --model FOLDER --images IMAGE --html results.html

The model is a folder of tools/export_model.py, or a checkpoint (-c CONFIG
-o Global.pretrained_model=WEIGHTS).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ppcls_ise  # noqa: E402
from ppcls_ise.cli import run  # noqa: E402


def main() -> None:
    ppcls_ise.register()
    from ppcls_ise import search_commands
    from ppcls_ise.inference_options import add_arguments

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parts = {}
    for name, function in (
        ("build", search_commands.build),
        ("add", search_commands.add),
        ("remove", search_commands.remove),
        ("calibrate", search_commands.calibrate_gallery),
        ("query", search_commands.query),
    ):
        parts[name] = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        parts[name].set_defaults(function=function)
        parts[name].add_argument("gallery", help="the gallery's file")
    for name in ("build", "add", "query"):
        add_arguments(parts[name])
        parts[name].add_argument("--skip-unreadable", action="store_true")
    parts["remove"].add_argument("paths", nargs="+", help="images, or folders of images")
    calibrate, query = parts["calibrate"], parts["query"]
    calibrate.add_argument("--labels", required=True, help="names, pseudo, or a CSV file")
    calibrate.add_argument("--features", help=".npz of tools/infer.py; default: the gallery's own")
    calibrate.add_argument("--false-accept", type=float, default=0.01, help="default: 0.01")
    calibrate.add_argument("--eps", type=float, default=0.5, help="of the clustering for pseudo")
    query.add_argument("--count", type=int, default=10, help="images per query (default: 10)")
    query.add_argument("--csv", help="file for the ranked lists")
    query.add_argument("--html", help="file for the ranked images")
    args = parser.parse_args()
    print(args.function(args))


if __name__ == "__main__":
    run(main)
