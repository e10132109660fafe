# SPDX-License-Identifier: Apache-2.0
"""``check``: Does this machine train, and as it should?

Runs a list of checks on a card, or on a CPU those that need none, and prints a table. The exit
code is 1 if one of them failed. Run it first on a new machine.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import paddle

from ppcls_ise.checks import environment, numerics, runs
from ppcls_ise.checks.report import FAILED, Check, Machine, run_checks, table, write_json
from ppcls_ise.errors import ConfigError
from ppcls_ise.registry import register

CHECKS: list[tuple[str, str, Check]] = [
    ("installation", "installation", environment.installation),
    ("memory", "memory", environment.memory),
    ("search", "neighbor search", numerics.search),
    ("steps", "a step of every method", numerics.steps),
    ("batch-norm", "grouped batch norm", numerics.batch_norm),
    ("trajectory", "ten steps, card and CPU", numerics.trajectory),
    ("mixed-precision", "mixed precision", numerics.mixed_precision),
    ("resume", "equal runs, resumed runs", runs.repeat_and_resume),
    ("features", "features, card and CPU", runs.features),
    ("export", "export and inference", runs.export),
    ("workers", "loader workers", runs.workers),
    ("speed", "speed", runs.speed),
    ("two-cards", "one card and two", runs.two_cards),
]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), help="default: gpu where Paddle sees a card"
    )
    names = [name for name, _, _ in CHECKS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", help="file to write the outcomes to")


def command(args: argparse.Namespace) -> None:
    register()
    device = args.device or ("gpu" if _sees_a_card() else "cpu")
    if device == "gpu" and not _sees_a_card():
        raise ConfigError(
            "Paddle sees no card here: install paddlepaddle-gpu and look at `nvidia-smi` "
            "(docs/en/gpu.md), or --device cpu"
        )
    paddle.device.set_device(device)
    chosen = [check for check in CHECKS if not args.only or check[0] in args.only]
    logging.disable(logging.WARNING)  # of the runs inside
    try:
        with tempfile.TemporaryDirectory(prefix="ppcls_ise_check_") as folder:
            machine = Machine(device, Path(folder))
            outcomes = run_checks(
                chosen, machine, progress=lambda title: print(f"... {title}", file=sys.stderr)
            )
    finally:
        logging.disable(logging.NOTSET)
    if args.json:
        write_json(args.json, machine, outcomes)
    print(table(outcomes))
    if any(outcome.status == FAILED for outcome in outcomes):
        sys.exit(1)


def _sees_a_card() -> bool:
    return paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
