# SPDX-License-Identifier: Apache-2.0
"""All methods on the synthetic data set, over several seeds.

    python benchmarks/methods.py --seeds 3 --out benchmarks/results/methods.json
    python benchmarks/methods.py --short --rows ISE "ISE, camera-aware" "ISE, small ViT"

Each row trains through tools/train.py and reports the LAST epoch's figures (no selection on the
test set). The seed is that of the training; the images are the same for all rows.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import ppcls_ise  # noqa: E402

NUMBER = r"([0-9.]+)"
FIGURES = re.compile(rf"\[Eval\].* mAP {NUMBER}, mINP {NUMBER}, Rank-1 {NUMBER}")
CONTRAST = "{'ClusterContrastLoss': {'weight': 1.0}}"
UNTRAINED = ["Clustering.min_samples=1000000", "Global.epochs=1", "Global.eval_interval=1"]
CAMERA = ["Clustering.camera_aware=True", "Clustering.k2_first_epoch=3"]
IBN = ["Arch.Backbone.ibn_layers=2"]
VIT = [
    "Arch.Backbone={'name': 'ReIDViT', 'embed_dim': 96, 'depth': 4, 'num_heads': 3, "
    "'image_size': [96, 48]}",
    "Arch.Neck.num_features=96",
    "Arch.Neck.pooling='none'",
    "Optimizer.lr.learning_rate=0.0005",
]
# A tenth of the work, for rows that are compared with each other.
SHORT = [
    "Global.epochs=6",
    "Global.eval_interval=6",
    "Optimizer.lr.step_size=4",
    "DataLoader.Train.sampler.iters=25",
    "Global.image_shape=[3, 64, 32]",
    *(
        f"{place}.0.ResizeImage.size=[32, 64]"
        for place in (
            "Clustering.transform_ops",
            "DataLoader.Train.dataset.transform_ops",
            "DataLoader.Eval.Query.dataset.transform_ops",
            "DataLoader.Eval.Gallery.dataset.transform_ops",
        )
    ),
]
# name -> config and overrides, or None for a row that is not trained
ROWS: dict[str, tuple[str, list[str]] | None] = {
    "raw pixels": None,
    "untrained network": ("ISE_synthetic", UNTRAINED),
    "Cluster Contrast": ("ClusterContrast_synthetic", []),
    "ISE": ("ISE_synthetic", []),
    "ISE, PLI only": ("ISE_synthetic", [f"Loss.Train=[{CONTRAST}]"]),
    "ISE, LP only": ("ISE_synthetic", ["Arch.Head.support_in_memory=False"]),
    "Cluster Contrast, hard memory": ("ClusterContrast_synthetic", ["Arch.Head.memory=hard"]),
    "HHCL": ("HHCL_synthetic", []),
    "HHCL, convex": ("HHCL_synthetic", ["Loss.Train.0.HybridContrastLoss.convex=True"]),
    "HHCL, version 2": ("HHCL_synthetic", ["Arch.Head.version=2"]),
    "CSA + HPS": ("CSA_synthetic", []),
    "Cluster Contrast, camera-aware": ("ClusterContrast_synthetic", CAMERA),
    "ISE, camera-aware": ("ISE_synthetic", CAMERA),
    "Cluster Contrast, small ViT": ("ClusterContrast_synthetic", VIT),
    "ISE, small ViT": ("ISE_synthetic", VIT),
    "ISE, IBN": ("ISE_synthetic", IBN),
    "HPS, plain initialization": ("CSA_synthetic", ["Arch.Head.initialization=mean"]),
}


def pixel_figures(image_root: str) -> tuple[float, float]:
    """mAP and Rank-1 of centered, normalized 32x64 pixels."""
    from ppcls_ise.data import MarketStyleDataset, read_image
    from ppcls_ise.metrics import evaluate_rank

    sides = []
    for split in ("query", "bounding_box_test"):
        dataset = MarketStyleDataset(image_root, split)
        pixels = [
            cv2.resize(read_image(path), (32, 64), interpolation=cv2.INTER_AREA)
            for path in dataset.images
        ]
        sides.append((np.reshape(pixels, (len(pixels), -1)).astype(np.float32), dataset))
    mean = sides[1][0].mean(axis=0)
    (query, q), (gallery, g) = ((values - mean, dataset) for values, dataset in sides)
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    result = evaluate_rank(query, gallery, q.pids, g.pids, q.camids, g.camids)
    return result.mAP, float(result.cmc[0])


def trained_figures(row: tuple[str, list[str]], seed: int, output: Path, more: list[str]):
    """mAP and Rank-1 of the last epoch, and the minutes it took."""
    config, overrides = row
    options = [f"Global.seed={seed}", f"Global.output_dir={output}", *overrides, *more]
    command = [sys.executable, str(ROOT / "tools" / "train.py")]
    command += ["-c", str(ROOT / "configs" / f"{config}.yaml")]
    command += [part for option in options for part in ("-o", option)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    last = FIGURES.findall(done.stdout)[-1]
    return float(last[0]), float(last[2]), (time.perf_counter() - started) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--image-root", default="dataset/synthetic")
    parser.add_argument("--out", type=Path, default=Path("output/methods.json"))
    parser.add_argument("--short", action="store_true", help="6 epochs of 25 steps on 64x32")
    parser.add_argument("-o", "--override", action="append", default=[])
    args = parser.parse_args()
    ppcls_ise.register()
    from ppcls_ise.synthetic.dataset import make_synthetic

    make_synthetic(args.image_root)
    common = [f"Global.image_root={args.image_root}", "Global.print_batch_step=1000"]
    common += SHORT if args.short else []
    results: dict[str, list[list[float]]] = {}
    for seed in range(1, args.seeds + 1):
        for name in args.rows:
            row = ROWS[name]
            if row is None:
                figures = [*pixel_figures(args.image_root), 0.0]
            else:
                output = args.out.parent / f"{name.replace(' ', '_')}_{seed}"
                more = [*common, *args.override]
                if args.short and "ViT" in name:
                    more.append("Arch.Backbone.image_size=[64, 32]")
                figures = [*trained_figures(row, seed, output, more)]
            results.setdefault(name, []).append(figures)
            print(f"seed {seed}  {name:32s} mAP {figures[0]:.3f}  Rank-1 {figures[1]:.3f}")
            sys.stdout.flush()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1))
    print(f"\n| method | mAP (mean ± std, {args.seeds} seeds) | Rank-1 | minutes |")
    print("|---|---|---|---|")
    for name, runs in results.items():
        mean, std = np.mean(runs, axis=0), np.std(runs, axis=0)
        print(
            f"| {name} | {mean[0]:.3f} ± {std[0]:.3f} | {mean[1]:.3f} ± {std[1]:.3f} "
            f"| {mean[2]:.1f} |"
        )


if __name__ == "__main__":
    main()
