# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels: this plugin, a dense baseline, and the authors' code where it is at hand.

    python benchmarks/pseudo_labels.py --images 12936 32621
    python benchmarks/pseudo_labels.py --images 12936 --peer ../ISE-ReID --peer-python PYTHON

All cluster the same features, each run in a process of its own, taking turns; medians. The dense
implementations need about 8 to 12 bytes per pair of images (32,621 images: 11 GB).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, PeakMemory, apart, bars, report
from made_up_features import clustered_features

_MIN_SAMPLES = 4
_BLOCK_ROWS = 2048


def ours(features: np.ndarray, eps: float) -> tuple[np.ndarray, float]:
    """Labels and the seconds of the search."""
    from ppcls_ise.clustering import generate_pseudo_labels

    result = generate_pseudo_labels(features, eps, _MIN_SAMPLES)
    return result.labels, result.seconds["neighbors"]


def dense(features: np.ndarray, eps: float) -> tuple[np.ndarray, float]:
    """The same from dense matrices, with scikit-learn's DBSCAN."""
    from dense_baseline import jaccard_distances

    distances, seconds = jaccard_distances(features)
    return _dbscan(distances, eps), seconds["neighbors"]


def peer(features: np.ndarray, eps: float) -> tuple[np.ndarray, float]:
    """The same by the authors' code, on the processor."""
    import torch
    from authors_utils import faiss_rerank

    seconds = [0.0]

    class TimedIndex:
        """Adds up the time of their search; nothing else is changed."""

        def __init__(self, *arguments: Any) -> None:
            self.index = make(*arguments)

        def __getattr__(self, name: str) -> Any:
            def timed(*arguments: Any) -> Any:
                started = time.perf_counter()
                result = getattr(self.index, name)(*arguments)
                seconds[0] += time.perf_counter() - started
                return result

            return timed

    make, faiss_rerank.index_init_cpu = faiss_rerank.index_init_cpu, TimedIndex
    try:
        distances = faiss_rerank.compute_jaccard_distance(
            torch.from_numpy(features), k1=30, k2=6, print_flag=False, search_option=3
        )
    finally:
        faiss_rerank.index_init_cpu = make
    return _dbscan(distances, eps), seconds[0]


def product(features: np.ndarray, _: float) -> tuple[None, float]:
    """All N·N·D products in blocks, on all cores, and nothing else."""
    from ppcls_ise.clustering.parallel import ordered_map, spans

    blocks = list(spans(len(features), _BLOCK_ROWS))

    def multiply(pair: tuple[tuple[int, int], tuple[int, int]]) -> None:
        np.matmul(features[slice(*pair[0])], features[slice(*pair[1])].T)

    started = time.perf_counter()
    for _result in ordered_map(multiply, ((a, b) for a in blocks for b in blocks)):
        pass
    return None, time.perf_counter() - started


def _dbscan(distances: np.ndarray, eps: float) -> np.ndarray:
    from sklearn.cluster import DBSCAN

    model = DBSCAN(eps=eps, min_samples=_MIN_SAMPLES, metric="precomputed", n_jobs=-1)
    return model.fit_predict(distances)


RUNS = {"ours": ours, "dense baseline": dense, "authors": peer, "plain product": product}


def measure(name: str, eps: float, folder: Path) -> dict[str, float]:
    """One run on the features in ``folder``; writes its labels there."""
    features = np.load(folder / "features.npy")
    RUNS[name](features[:1000].copy(), eps)  # load what is loaded on first use
    with PeakMemory() as memory:
        started = time.perf_counter()
        labels, search = RUNS[name](features, eps)
        total = time.perf_counter() - started
    if labels is not None:
        np.save(folder / f"{name}.npy", labels)
    return {"total": total, "search": search, "rest": total - search, "+MB": memory.added}


def compare(count: int, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Rows of the table for one number of images."""
    np.save(folder / "features.npy", clustered_features(count, args.dim))
    names = ["ours", "plain product"]
    names += [] if args.no_dense else ["dense baseline"]
    names += ["authors"] if args.peer else []
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(args.repeat):
        for name in names:
            options = ["--one", name, "--folder", str(folder), "--eps", str(args.eps)]
            options += ["--peer", str(args.peer)] if args.peer else []
            python = args.peer_python if name == "authors" else sys.executable
            runs[name].append(apart(__file__, options, python=python))
            print(f"{count} images, run {turn + 1}, {name}: {runs[name][-1]}", file=sys.stderr)
    rows = []
    own = np.load(folder / "ours.npy")
    for name in names:
        row = {key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]}
        rows.append({"images": count, "implementation": name, **row})
    first = rows[0]
    for row in rows:
        row["total / ours"] = row["total"] / first["total"]
        if row["implementation"] == "plain product":
            row["search / product"] = None
            continue
        row["rest / ours"] = row["rest"] / first["rest"]
        row["+MB / ours"] = row["+MB"] / first["+MB"]
        row["search / product"] = row["search"] / rows[1]["search"]
        labels = np.load(folder / f"{row['implementation']}.npy")
        row["labels as ours"] = str(bool((labels == own).all()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[5000])
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--eps", type=float, default=0.6)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-dense", action="store_true", help="leave the dense baseline out")
    parser.add_argument("--peer", type=Path, help="checkout of the authors' repository, ISE-ReID")
    parser.add_argument("--peer-python", default=sys.executable, help="one with torch and faiss")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", choices=list(RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        if args.peer:
            # Only this folder of theirs: the packages around it import networks and data sets.
            package = types.ModuleType("authors_utils")
            package.__path__ = [str(args.peer / "clustercontrast" / "utils")]
            sys.modules["authors_utils"] = package
        print(json.dumps(measure(args.one, args.eps, args.folder)))
        return
    rows: list[dict[str, Any]] = []
    for count in args.images:
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(count, args, Path(folder))
        report("pseudo_labels", rows, args.out)
        seconds = {
            f"{row['implementation']}, {row['images']:,}": {
                "search": row["search"],
                "rest": row["rest"],
            }
            for row in rows
        }
        bars("pseudo_labels", seconds, ylabel="seconds", log=True, folder=args.out)


if __name__ == "__main__":
    main()
