# SPDX-License-Identifier: Apache-2.0
"""``report``: Show what a run found, as one HTML file that opens from disk.

It is written at the end of a training, and by this command at any time after the first clustering.
"""

import argparse
import os
import shlex
from pathlib import Path

import paddle.distributed as dist

from ppcls_ise import compat
from ppcls_ise.engine import UnsupervisedEngine
from ppcls_ise.engine.record.run_record import CONFIG
from ppcls_ise.errors import shown
from ppcls_ise.utils.files import require_replaceable
from ppcls_ise.visualization.run_report import run_folder_of, write_run_report


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="Global.output_dir of the run, or the folder RecModel in it")
    parser.add_argument("--out", help="HTML file; default: report.html in the folder of the run")
    parser.add_argument(
        "--images", help="where Global.image_root of the run is now, if it was moved"
    )


def command(args: argparse.Namespace) -> str:
    run_folder_of(args.run)
    if args.out is not None:
        require_replaceable(args.out, "--out")
    path = write_run_report(args.run, args.out, images=args.images)
    return f"{shown(path)}: {path.stat().st_size / 1e6:.1f} MB, open it in a browser"


def report_and_next_steps(engine: UnsupervisedEngine) -> Path | None:
    """At the end of a run: write its report, and log what can be done now, as the last lines.

    A report that fails never fails the run, whatever it was: that is a warning.

    Returns:
        The report; None without one, and on all processes but the first.
    """
    if dist.get_rank():
        return None
    folder, report = engine.run_folder, None
    try:
        report = write_run_report(folder)
    except (Exception, KeyboardInterrupt) as error:
        compat.logger().warning(
            f"the run is complete, but its report could not be written "
            f"({type(error).__name__}: {error}). Once that is settled: ppcls-ise report "
            f"{shlex.quote(str(folder))}"
        )
    for line in next_steps(engine, folder, report):
        compat.logger().info(line)
    return report


def next_steps(engine: UnsupervisedEngine, folder: Path, report: Path | None) -> list[str]:
    """Commands that go on from a finished run."""
    config = shlex.quote(str(folder / CONFIG))
    best = "best_model" if (folder / "best_model.pdparams").is_file() else "latest"
    weights = f"-o Global.pretrained_model={shlex.quote(str(folder / best))}"
    model = shlex.quote(os.path.join(engine.config["Global"].get("save_inference_dir") or "model"))
    lines = ["next steps:"]
    if report is not None:
        lines.append(f"  what it found     {report} (open it in a browser)")
    if engine.config["DataLoader"].get("Eval"):
        lines.append(f"  evaluate          ppcls-ise eval -c {config} {weights}")
    lines.append(
        f"  export            ppcls-ise export -c {config} {weights} "
        f"-o Global.save_inference_dir={model}"
    )
    lines.append(f"  features          ppcls-ise infer --model {model} --images FOLDER --out f.npz")
    return lines
