# SPDX-License-Identifier: Apache-2.0
"""A row of the model zoo on the real data set, with the published figure beside the measured one.

    python benchmarks/reproduce.py ISE_market --image-root ./dataset --seeds 1 2 3

Trains the row's recipe once per seed, as it is (``-o`` passes overrides on), and writes
``output/reproduce/<row>/figures.json``: per seed clusters and outliers of every epoch and every
evaluation. A run that was stopped is continued by the same command. The published runs report the
epoch that is best on the test set; the last epoch, which nothing selects, is printed as well.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_NUMBER = r"([0-9.]+)"
_EVALUATION = re.compile(
    rf"\[Eval\]\[Epoch (\d+)\].* mAP {_NUMBER}, mINP {_NUMBER}, Rank-1 {_NUMBER}"
)
_CLUSTERS = re.compile(rf"\[Cluster\]\[Epoch (\d+)/\d+\] (\d+) clusters, {_NUMBER} % outliers")
_CONTRAST = "Loss.Train=[{'ClusterContrastLoss':{'weight':1.0}}]"
_BASELINE = "Arch.Head={'name':'ClusterContrastHead','memory':'hard','momentum':0.2}"
_ISE = "ISE-ReID (Zhang et al., CVPR 2022)"
_CC = "Cluster Contrast (Dai et al., arXiv 2103.11568)"
_CAJ = "CA-Jaccard (Chen et al., CVPR 2024)"
_SSL = "TransReID-SSL (Luo et al., arXiv 2111.12084)"
_HHCL = "HHCL (Hu et al., arXiv 2106.09958)"


class Row(NamedTuple):
    """A recipe, and what was published for it in percent; None where nothing was."""

    config: str
    overrides: tuple[str, ...] = ()
    mean_ap: float | None = None
    rank1: float | None = None
    source: str = "nothing published"


ROWS = {
    "ISE_market": Row("ISE_market", (), 84.7, 94.0, _ISE),
    "ISE_market_baseline": Row("ISE_market", (_BASELINE, _CONTRAST), 82.5, 92.5, _ISE),
    "ISE_market_pli": Row("ISE_market", (_CONTRAST,), 83.9, 93.9, _ISE),
    "ISE_market_lp": Row("ISE_market", ("Arch.Head.support_in_memory=False",), 83.6, 92.7, _ISE),
    "ISE_market_gem": Row("ISE_market_gem", (), 85.3, 94.3, _ISE),
    "ISE_market_camera": Row("ISE_market_camera"),
    "ISE_market_ibn": Row("ISE_market_ibn"),
    "ISE_market_vit": Row("ISE_market_vit"),
    "ISE_msmt17": Row("ISE_msmt17", (), 35.0, 64.8, _ISE),
    "ISE_msmt17_gem": Row("ISE_msmt17_gem", (), 37.0, 67.6, _ISE),
    "ISE_msmt17_camera": Row("ISE_msmt17_camera"),
    "ISE_veri776_camera": Row("ISE_veri776_camera"),
    "ClusterContrast_market": Row("ClusterContrast_market", (), 82.1, 92.3, _CC),
    "ClusterContrast_msmt17": Row("ClusterContrast_msmt17", (), 27.6, 56.0, _CC),
    "CameraContrast_market": Row("CameraContrast_market", (), 84.8, None, _CAJ),
    "CameraContrast_msmt17": Row("CameraContrast_msmt17", (), 42.8, None, _CAJ),
    "ViT_market": Row("ViT_market", (), 89.6, 95.3, _SSL),
    "ViT_market_plain": Row("ViT_market", ("Arch.Backbone.conv_stem=False",), 88.2, 94.2, _SSL),
    "ViT_msmt17": Row("ViT_msmt17", (), 50.6, 75.0, _SSL),
    "ViT_msmt17_plain": Row("ViT_msmt17", ("Arch.Backbone.conv_stem=False",), 40.9, 66.4, _SSL),
    "HHCL_market": Row("HHCL_market", (), 84.2, 93.4, _HHCL),
    "HHCL_msmt17": Row("HHCL_msmt17", (), 31.8, 58.9, _HHCL),
    "CSA_market": Row("CSA_market"),
    "CSA_msmt17": Row("CSA_msmt17"),
    "CSA_personx": Row("CSA_personx"),
}


def figures_of(log: str) -> dict[str, Any]:
    """Clusters and evaluations in a log, by epoch; an epoch that was done again counts once."""
    clusters = {int(epoch): [int(n), float(share)] for epoch, n, share in _CLUSTERS.findall(log)}
    evaluations = {
        int(epoch): [float(mean_ap), float(rank1)]
        for epoch, mean_ap, _, rank1 in _EVALUATION.findall(log)
    }
    return {"clusters": clusters, "evaluations": evaluations}


def train(row: Row, seed: int, image_root: str, output: Path, more: list[str]) -> dict[str, Any]:
    """Train, or continue, one seed and read its log."""
    options = [*row.overrides, f"Global.image_root={image_root}", f"Global.seed={seed}"]
    options += [f"Global.output_dir={output}", *more]
    if (output / "RecModel" / "resume").is_dir():
        options.append(f"Global.checkpoints={output / 'RecModel' / 'latest'}")
    command = [sys.executable, str(ROOT / "tools" / "train.py")]
    command += ["-c", str(ROOT / "configs" / f"{row.config}.yaml")]
    command += [part for option in options for part in ("-o", option)]
    if code := subprocess.run(command).returncode:
        sys.exit(code)  # it has said why
    log = (output / "RecModel" / "train.log").read_text(encoding="utf-8")
    return {"seed": seed, "options": options, **figures_of(log)}


def table(row: Row, runs: list[dict[str, Any]]) -> list[str]:
    """Published and measured figures in percent, as a Markdown table."""
    lines = ["| | mAP | Rank-1 |", "|---|---|---|"]
    published = [f"{value:.1f}" if value is not None else "–" for value in (row.mean_ap, row.rank1)]
    lines.append(f"| published, {row.source} | {' | '.join(published)} |")
    for title, chosen in (
        ("best epoch on the test set", lambda done: max(done.values())),
        ("last epoch", lambda done: done[max(done)]),
    ):
        finals = [chosen(run["evaluations"]) for run in runs]
        columns = []
        for values in zip(*finals, strict=True):
            mean = 100 * statistics.fmean(values)
            spread = 100 * statistics.pstdev(values)
            columns.append(f"{mean:.1f} ± {spread:.1f}" if len(runs) > 1 else f"{mean:.1f}")
        lines.append(f"| measured, {title} ({len(runs)} seeds) | {' | '.join(columns)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", choices=sorted(ROWS), metavar="ROW", help=", ".join(sorted(ROWS)))
    parser.add_argument("--image-root", required=True, help="folder of the data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path, default=Path("output/reproduce"))
    parser.add_argument("-o", "--override", action="append", default=[])
    args = parser.parse_args()
    row, folder = ROWS[args.row], args.out / args.row
    runs = [
        train(row, seed, args.image_root, folder / f"seed_{seed}", args.override)
        for seed in args.seeds
    ]
    if any(not run["evaluations"] for run in runs):
        sys.exit("a run evaluated nothing: leave Global.eval_during_train on")
    (folder / "figures.json").write_text(
        json.dumps({"row": args.row, "published": row._asdict(), "runs": runs}, indent=1)
    )
    for run in runs:
        last = max(run["clusters"])
        number, outliers = run["clusters"][last]
        print(f"seed {run['seed']}: {number} clusters, {outliers} % outliers in epoch {last}")
    print(*table(row, runs), sep="\n")
    print(f"clusters and evaluations of every epoch: {folder / 'figures.json'}")


if __name__ == "__main__":
    main()
