# SPDX-License-Identifier: Apache-2.0
"""Memory and open files over many epochs of a tiny run: both have to stay flat.

    python benchmarks/soak.py --epochs 200

Every epoch clusters, trains, evaluates and saves. Writes soak.json and soak.png; exit code 1 if
the second half grows. Linux (reads /proc).
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import RESULTS, ROOT, report

import ppcls_ise
from ppcls_ise.engine import Callback

MOST_GROWTH = 0.03  # of the memory, over the second half of 200 epochs


class Measure(Callback):
    """Resident memory (MB) and open file descriptors at the end of every epoch.

    Loader workers that stay would show in the latter: each has pipes to this process.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[float, int]] = []

    def on_epoch_end(self, engine, epoch) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = len(os.listdir("/proc/self/fd"))
        self.rows.append((pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files))


def soak(epochs: int, workers: int, config: str, folder: Path) -> np.ndarray:
    """[epochs, 2]: memory and files of a run on 80 generated images."""
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine
    from ppcls_ise.synthetic.dataset import make_synthetic

    make_synthetic(folder / "set", num_train_ids=10, num_test_ids=6, images_per_id=8)
    overrides = {
        "Global.image_root": folder / "set",
        "Global.output_dir": folder / "run",
        "Global.epochs": epochs,
        "Global.eval_interval": 1,
        "Global.save_step_interval": 2,
        "Global.print_batch_step": 1000,
        "Clustering.k1": 10,
        "Clustering.eps": 0.6,
        "DataLoader.Train.sampler.batch_size": 16,
        "DataLoader.Train.sampler.iters": 4,
        "DataLoader.Train.loader.num_workers": workers,
    }
    path = ROOT / "configs" / f"{config}_synthetic.yaml"
    options = [f"{key}={value}" for key, value in overrides.items()]
    engine = UnsupervisedEngine(get_config(str(path), options), mode="train")
    engine.callbacks.append(measure := Measure())
    engine.train()
    return np.array(measure.rows)


def draw(series: np.ndarray, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, files) = pyplot.subplots(2, 1, figsize=(7, 5), sharex=True)
    memory.plot(range(1, len(series) + 1), series[:, 0])
    memory.set(ylabel="resident memory, MB", ylim=(0, None))
    files.plot(range(1, len(series) + 1), series[:, 1])
    files.set(ylabel="open files", xlabel="epoch", ylim=(0, None))
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--method", default="ISE", help="configs/<method>_synthetic.yaml")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    ppcls_ise.register()
    with tempfile.TemporaryDirectory() as folder:
        series = soak(args.epochs, args.workers, args.method, Path(folder))
    half = series[len(series) // 2 :]
    slope = np.polyfit(np.arange(len(half)), half[:, 0], 1)[0]
    growth, more_files = slope * len(half) / half[0, 0], int(half[-1, 1] - half[0, 1])
    flat = growth <= MOST_GROWTH and more_files <= 0
    every = max(1, len(series) // 10)
    rows = [
        {"epoch": epoch, "memory MB": float(memory), "open files": int(files)}
        for epoch, (memory, files) in enumerate(series, 1)
        if epoch % every == 0 or epoch == 1
    ]
    report("soak", rows, args.out)
    draw(series, args.out / "soak.png")
    print(
        f"second half: {1000 * slope:+.0f} kB an epoch ({growth:+.1%}), {more_files:+d} files: "
        f"{'flat' if flat else 'NOT flat'}"
    )
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
