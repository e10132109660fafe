# SPDX-License-Identifier: Apache-2.0
"""``demo``: Make a data set, train on it without labels, show what that changed."""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise import compat
from ppcls_ise.cli.arguments import add_config_argument
from ppcls_ise.cli.report import report_and_next_steps
from ppcls_ise.config.overrides import get_config
from ppcls_ise.engine.engine import UnsupervisedEngine
from ppcls_ise.errors import ConfigError
from ppcls_ise.metrics import ReIDResult
from ppcls_ise.registry import register
from ppcls_ise.synthetic.dataset import make_synthetic
from ppcls_ise.utils.progress import progress_bar
from ppcls_ise.visualization.pictures import ranked_lists

_SHOWN_QUERIES = 6
# With --fast: about a minute instead of four.
_FAST_SET: dict[str, Any] = {"num_train_ids": 24, "num_test_ids": 12, "images_per_id": 16}
_FAST_RUN = [
    "Global.image_root=./dataset/synthetic_fast",
    "Global.output_dir=./output/ISE_synthetic_fast",
    "Global.epochs=6",
    "Global.eval_interval=3",
    "Optimizer.lr.step_size=4",
    "Clustering.warm_up_batches=15",
    "DataLoader.Train.sampler.batch_size=32",
    "DataLoader.Train.sampler.iters=20",
]


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser, default="ISE_synthetic")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images")
    parser.add_argument(
        "--fast", action="store_true", help="fewer images and epochs: a minute instead of four"
    )


def command(args: argparse.Namespace) -> str:
    register()
    return run_demo(args.config, args.override, seed=args.seed, fast=args.fast)


def run_demo(config_path: str, overrides: list[str], *, seed: int = 0, fast: bool = False) -> str:
    """Generate the synthetic set, train on it, evaluate before and after.

    Args:
        config_path: a config whose ``Global.image_root`` is where the data set goes.
        overrides: as for ``-o``.
        seed: of the data set.
        fast: fewer images, epochs and steps, in folders of their own; ``overrides`` come on top.

    Returns:
        The report to print.
    """
    started = time.perf_counter()
    config = get_config(config_path, [*(_FAST_RUN if fast else []), *overrides])
    root = config["Global"]["image_root"]
    with progress_bar("drawing people", "image") as progress:
        make_synthetic(root, seed, **(_FAST_SET if fast else {}), progress=progress)
    if not config["Global"]["eval_during_train"]:
        raise ConfigError("the demonstration evaluates: leave Global.eval_during_train on")
    engine = UnsupervisedEngine(config, mode="train")
    compat.logger().info("evaluating the untrained network")
    engine.warm_up()
    before, before_sides = _evaluate(engine)
    engine.record.evaluated(engine, 0, before, before_sides, 0.0)
    engine.train()
    after, after_sides = _evaluate(engine)

    picture = engine.run_folder / "ranked_lists.png"
    datasets = engine.query_dataloader.dataset, engine.gallery_dataloader.dataset
    rows = np.linspace(0, len(datasets[0]) - 1, _SHOWN_QUERIES).astype(int)
    ranked_lists(
        picture,
        [("before training", *before_sides), ("after training", *after_sides)],
        datasets[0].images,
        datasets[1].images,
        rows=rows.tolist(),
    )
    report = report_and_next_steps(engine)
    minutes = (time.perf_counter() - started) / 60
    return _report(before, after, minutes, root, engine.run_folder, picture, report)


def _evaluate(engine: UnsupervisedEngine) -> tuple[ReIDResult, tuple]:
    sides = engine.query_and_gallery()
    return engine.metric(*sides), sides


def _report(
    before: ReIDResult,
    after: ReIDResult,
    minutes: float,
    root: str,
    folder: Path,
    picture: Path,
    report: Path | None,
) -> str:
    lines = [
        "",
        f"Trained without labels on generated images in {minutes:.1f} minutes.",
        "",
        "                   mAP   Rank-1",
        f"  before training  {before.mAP:.3f}  {before.rank1:.3f}   (untrained network)",
        f"  after training   {after.mAP:.3f}  {after.rank1:.3f}",
        "",
        f"  images        {root}",
        f"  weights       {folder / 'latest.pdparams'}",
        f"  log           {folder / 'train.log'}",
        f"  ranked lists  {picture}",
    ]
    if report is not None:
        lines += [f"  report        {report}", "", "Open the report in a browser."]
    return "\n".join(lines)
