# SPDX-License-Identifier: Apache-2.0
"""CMC + mAP and re-ranking: time and memory, against the product alone, dense code and peers.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --scale msmt17 --share 0.1 --peer /path/to/fast-reid
    python benchmarks/evaluation.py --re-ranking --peer /path/to/ISE-ReID --python torch/bin/python

Every measurement is a process of its own on the same features; they take turns. Where the dense
matrices do not fit, --share measures them (not ours) with that share of the queries: seconds are
scaled up by its inverse, memory is not. --share does not suit re-ranking, whose cost is not linear.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import PeakMemory, bars, report
from evaluation_baselines import dense_evaluation, dense_re_ranking, peers, product_alone

SCALES = {
    "small": (400, 2000),
    "half": (1684, 9866),
    "market": (3368, 19732),
    "msmt17": (11659, 82161),
}
# Of the images around their identity; gives an mAP near 0.8 at D = 2048.
_SPREAD = np.float32(3.1)
OURS, FLOOR, DENSE = "ours", "product alone", "dense, sorting"


def make_features(folder: Path, queries: int, gallery: int, dim: int) -> None:
    """Unit rows around identity centers, 16 images per identity, 6 cameras."""
    rng = np.random.default_rng(0)
    count = queries + gallery
    pids = rng.integers(0, max(count // 16, 1), count)
    centers = rng.standard_normal((pids.max() + 1, dim), dtype=np.float32)
    rows = np.lib.format.open_memmap(
        folder / "rows.npy", mode="w+", dtype=np.float32, shape=(count, dim)
    )
    for start in range(0, count, 1024):
        block = centers[pids[start : start + 1024]]
        block += _SPREAD * rng.standard_normal(block.shape, dtype=np.float32)
        rows[start : start + 1024] = block / np.linalg.norm(block, axis=1, keepdims=True)
    rows.flush()
    np.savez(folder / "labels.npz", pids=pids, camids=rng.integers(0, 6, count), queries=queries)


def load(folder: Path, share: float) -> tuple:
    """Query and gallery features, identities and cameras; a share of the queries."""
    rows = np.load(folder / "rows.npy")
    with np.load(folder / "labels.npz") as labels:
        pids, camids, queries = labels["pids"], labels["camids"], int(labels["queries"])
    kept = max(1, round(share * queries))
    parts = [(part[:kept], part[queries:]) for part in (rows, pids, camids)]
    return tuple(side for part in parts for side in part)


def ours(problem: tuple) -> None:
    from ppcls_ise.metrics import evaluate_rank

    evaluate_rank(*problem)


def ours_re_ranked(problem: tuple) -> None:
    from ppcls_ise.metrics import evaluate_rank, re_ranking

    evaluate_rank(None, None, *problem[2:], distmat=re_ranking(*problem[:2]))


def contestants(again: bool, peer: str | None) -> dict[str, Any]:
    """Functions of a problem by name: of one peer, or our own."""
    if peer is not None:
        return {name: run for name, run, ranks_again in peers(Path(peer)) if ranks_again == again}
    if again:
        return {OURS: ours_re_ranked, DENSE: dense_re_ranking}
    return {OURS: ours, FLOOR: product_alone, DENSE: dense_evaluation}


def measure(args: argparse.Namespace) -> None:
    """In a process of its own: one run of one contestant, as a line of JSON."""
    found = contestants(args.re_ranking, args.peer[0] if args.peer else None)
    if args.measure == "?":
        print(json.dumps(list(found)))
        return
    run = found[args.measure]
    problem = load(Path(args.folder), args.share)
    small = (problem[0][:64], problem[1][:512], problem[2][:64], problem[3][:512])
    run((*small, problem[4][:64], problem[5][:512]))  # imports, threads
    with PeakMemory() as memory:
        started = time.perf_counter()
        run(problem)
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "added": memory.added}))


def apart(python: str, *arguments: str) -> Any:
    command = [python, __file__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"failed: {' '.join(command)}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    again = ["--re-ranking"] * args.re_ranking
    entries = []  # name, python, arguments
    for peer in [None, *args.peer]:
        own = sys.executable if peer is None or (Path(peer) / "ppcls").is_dir() else args.python
        flags = [*again, *(["--peer", peer] if peer else [])]
        for name in apart(own, "--measure", "?", *flags) or []:
            if name != DENSE or not args.no_dense:
                entries.append((name, own, ["--measure", name, *flags]))
    results: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in entries}
    for _ in range(args.repeat):
        for name, python, arguments in entries:
            share = 1.0 if name in (OURS, FLOOR) else args.share
            done = apart(python, *arguments, "--share", str(share), "--folder", str(folder))
            if done is not None:
                results[name].append(done | {"seconds": done["seconds"] / share})
            print(f"{name}: {done}", file=sys.stderr, flush=True)
    results = {name: runs for name, runs in results.items() if runs}
    middle = {
        name: statistics.median(run["seconds"] for run in runs) for name, runs in results.items()
    }
    return [
        {
            "scale": args.scale,
            "what": name,
            "seconds": middle[name],
            "of ours": middle[name] / middle[OURS],
            "added MB": statistics.median(run["added"] for run in runs),
            "queries": "all" if name in (OURS, FLOOR) or args.share == 1 else f"{args.share:g}",
        }
        for name, runs in results.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=list(SCALES), default="market")
    parser.add_argument("--re-ranking", action="store_true")
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the queries, see above")
    parser.add_argument("--no-dense", action="store_true", help="leave the dense code out")
    parser.add_argument("--peer", action="append", default=[], help="checkout, repeatable")
    parser.add_argument("--python", default=sys.executable, help="interpreter with PyTorch")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_features(Path(folder), *SCALES[args.scale], args.dim)
        rows = compare(args, Path(folder))
    name = f"{'re_ranking' if args.re_ranking else 'evaluation'}_{args.scale}"
    report(name, rows)
    heights = {row["what"]: row["seconds"] for row in rows}
    bars(name, {f"{args.scale}, seconds": heights}, ylabel="seconds", log=True)


if __name__ == "__main__":
    main()
