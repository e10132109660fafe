# SPDX-License-Identifier: Apache-2.0
"""How time and memory of exact pseudo-labels grow with the number of images.

    python benchmarks/growth.py --images 10000 30000 100000 300000 1000000

Every size runs in a process of its own; the JSON and the plot are written after each.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from common import RESULTS, PeakMemory, apart, report
from made_up_features import clustered_features
from tqdm import tqdm

from ppcls_ise.clustering import generate_pseudo_labels

_STAGES = ("neighbors", "jaccard", "dbscan")


def measure(count: int, dim: int, eps: float) -> dict[str, object]:
    """One clustering of ``count`` made-up images, with a progress bar on standard error."""
    features = clustered_features(count, dim)
    generate_pseudo_labels(features[:2000], eps)
    bars: dict[str, tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            bars[stage] = tqdm(desc=stage, total=total, mininterval=10, ncols=80)
        bars[stage].update(done - bars[stage].n)

    with PeakMemory() as memory:
        started, used = time.perf_counter(), time.process_time()
        result = generate_pseudo_labels(features, eps, progress=progress)
        seconds, used = time.perf_counter() - started, time.process_time() - used
    for bar in bars.values():
        bar.close()
    return {
        "images": count,
        "dim": dim,
        "seconds": seconds,
        "CPU seconds": used,
        **{stage: result.seconds[stage] for stage in _STAGES},
        "+MB": memory.added,
        "ms per image": 1e3 * seconds / count,
        "+KB per image": 1024 * memory.added / count,
        "clusters": result.num_clusters,
        "outliers": result.outlier_share,
    }


def exponent(rows: list[dict[str, object]], name: str) -> float:
    """Slope of log(column) over log(images), by least squares."""
    points = np.array([(row["images"], row[name]) for row in rows], dtype=float)
    return float(np.polyfit(*np.log(points.T), 1)[0])


def plot(rows: list[dict[str, object]], folder: Path) -> None:
    """Seconds and memory over the number of images, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
    images = [row["images"] for row in rows]
    for name in ("seconds", *_STAGES):
        label = f"{name}, N^{exponent(rows, name):.2f}" if len(rows) > 1 else name
        axes[0].loglog(images, [row[name] for row in rows], "o-", label=label)
    label = f"N^{exponent(rows, '+MB'):.2f}" if len(rows) > 1 else "memory"
    axes[1].loglog(images, [row["+MB"] for row in rows], "o-", label=label)
    for axis, unit in zip(axes, ("seconds", "MB above the features"), strict=True):
        axis.set(xlabel="images", ylabel=unit)
        axis.grid(True, which="both", alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(folder / "growth.png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--eps", type=float, default=0.6)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", action="store_true", help="measure one size in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.images[0], args.dim, args.eps)))
        return
    rows: list[dict[str, object]] = []
    for count in sorted(args.images):
        options = ["--one", "--images", str(count), "--dim", str(args.dim), "--eps", str(args.eps)]
        rows.append(apart(__file__, options))
        report("growth", rows, args.out)
        plot(rows, args.out)
        sys.stdout.flush()
    if len(rows) > 1:
        for name in ("seconds", *_STAGES, "+MB"):
            print(f"{name} grows with N^{exponent(rows, name):.2f}")


if __name__ == "__main__":
    main()
