# SPDX-License-Identifier: Apache-2.0
"""``ppcls-ise COMMAND …``, ``python -m ppcls_ise COMMAND …`` and ``tools/COMMAND.py …``."""

import argparse
import importlib
import sys
from collections.abc import Sequence

import ppcls_ise
from ppcls_ise.cli.process import run

# Command, its module in this package, and what it does. A module has `configure`, which adds its
# arguments to a parser, and `command`, which takes what they were set to and returns what to print.
COMMANDS = {
    "check": ("check", "prove this installation: run this first on a new machine"),
    "train": ("train", "train without labels"),
    "eval": ("eval", "evaluate weights on a configuration's sets or on folders: mAP, mINP, CMC"),
    "report": ("report", "a page that shows what a run found: clusters, curves, doubts"),
    "export": ("export", "write a static model for inference"),
    "infer": ("infer", "features of images"),
    "search": ("search", "build, extend, calibrate and query a gallery of images"),
    "cluster": ("cluster", "from crops to people: clusters, a page to correct them, folders"),
    "compare": ("compare", "several runs in one table and one plot"),
    "suggest-eps": ("suggest_eps", "recommend Clustering.eps without labels"),
    "convert": ("convert", "PyTorch checkpoints to .pdparams and back"),
    "synthetic": ("synthetic", "generate a data set of drawn pedestrians"),
    "demo": ("demo", "train on generated images and show the result"),
    "configs": ("configs", "list the packaged configs, or print one"),
}


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process.

    Args:
        command: a key of `COMMANDS`; by default, the first argument.
        arguments: of the command; by default, those of the process.
    """
    run(lambda: _main(command, sys.argv[1:] if arguments is None else arguments))


def _main(command: str | None, arguments: Sequence[str]) -> None:
    if command is None:
        command, arguments = _choose(arguments)
        prog = f"ppcls-ise {command}"
    else:
        prog = None
    module = importlib.import_module(f"ppcls_ise.cli.{COMMANDS[command][0]}")
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(module.__doc__ or "").partition(": ")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(parser)
    report = module.command(parser.parse_args(arguments))
    if report:
        print(report)


def _choose(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name.ljust(width)}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="ppcls-ise",
        description="Unsupervised person re-identification as a plugin of PaddleClas.",
        epilog=f"commands:\n{listed}\n\nppcls-ise COMMAND --help tells the arguments of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=ppcls_ise.__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(arguments)
    return chosen.command, chosen.arguments
