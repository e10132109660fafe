# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels by several processes of one thread each: time, memory, and whether bytes are equal.

    python benchmarks/processes.py --images 32621 --dim 2048
    python benchmarks/processes.py --images 300000 --dim 256

Every process is kept on one core, so that as many processes as there are cores stand for as many
machines of one core. Beyond, and on a busy machine, seconds mean little; the CPU seconds of the
process that worked longest do not depend on the load.
"""

import argparse
import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from common import RESULTS, ROOT, report, status
from made_up_features import clustered_features


class MostMemory:
    """Most memory of this process alone, and most that it shares with others, both without the
    features; MB above what it was on entry, from samples every 50 ms."""

    def __enter__(self) -> "MostMemory":
        gc.collect()
        self._start = self._highest = self._now()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()
        self.alone, self.shared = (self._highest - self._start) / 1024

    def _sample(self) -> None:
        while not self._done.wait(0.05):
            self._highest = np.maximum(self._highest, self._now())

    def _now(self) -> np.ndarray:
        return np.array([status("RssAnon"), status("RssShmem")])


def work(folder: Path, eps: float) -> None:
    """One process: writes what it measured beside the features."""
    import ppcls_ise  # noqa: F401, I001 - before Paddle
    import paddle.distributed as dist

    from ppcls_ise.clustering import generate_pseudo_labels, k_nearest
    from ppcls_ise.distributed import AllProcesses
    from ppcls_ise.distributed.collectives import meet_all

    if int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) > 1:
        dist.init_parallel_env()
    processes = AllProcesses()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[processes.rank % len(cores)]})
    features = np.load(folder / "features.npy", mmap_mode="r")
    generate_pseudo_labels(np.array(features[:2000]), eps, processes=processes)
    features.sum()  # its pages are there
    found = {"rank": processes.rank}
    with MostMemory() as memory:
        meet_all()
        started, used = time.perf_counter(), time.process_time()
        lists = k_nearest(features, 30, processes=processes)
        meet_all()
        middle, half = time.perf_counter(), time.process_time()
        result = generate_pseudo_labels(features, eps, neighbors=lists, processes=processes)
        meet_all()
        ended, all_used = time.perf_counter(), time.process_time()
    found |= {"search s": middle - started, "rest s": ended - middle}
    found |= {"search CPU s": half - used, "rest CPU s": all_used - half}
    found |= {"+MB": memory.alone, "+MB shared": memory.shared}
    total = hashlib.sha256()
    for array in (*lists, result.labels, result.centroids):
        total.update(np.ascontiguousarray(array).data)
    found["bytes"] = total.hexdigest()
    if processes.rank == 0:
        np.savez(folder / "found.npz", indices=lists[0].astype(np.int32), labels=result.labels)
    (folder / f"{processes.rank}_of_{processes.size}.json").write_text(json.dumps(found))


def measure(folder: Path, count: int, eps: float) -> list[dict]:
    """What ``count`` processes measured."""
    command = [sys.executable]
    if count > 1:
        command += ["-m", "paddle.distributed.launch", f"--nproc_per_node={count}"]
        command += ["--backend=gloo", f"--log_dir={folder / 'logs'}"]
    command += [__file__, "--measure-in", str(folder), "--eps", str(eps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return [json.loads((folder / f"{rank}_of_{count}.json").read_text()) for rank in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32_621)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--eps", type=float, default=0.6)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--keep", type=Path, help="where to put the lists, for approximate.py")
    parser.add_argument(
        "--measure-in", type=Path, help="measure in this process, features being there"
    )
    args = parser.parse_args()
    if args.measure_in:
        work(args.measure_in, args.eps)
        return
    rows: list[dict] = []
    alone: dict = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "features.npy", clustered_features(args.images, args.dim))
        for count in args.processes:
            found = measure(folder, count, args.eps)
            most = {key: max(each[key] for each in found) for key in found[0] if key != "bytes"}
            alone = alone or {**most, "bytes": found[0]["bytes"]}
            rows.append(
                {
                    "images": args.images,
                    "dim": args.dim,
                    "processes": count,
                    "search s": most["search s"],
                    "rest s": most["rest s"],
                    "search CPU s of one": most["search CPU s"],
                    "rest CPU s of one": most["rest CPU s"],
                    "search speedup": alone["search s"] / most["search s"],
                    "by CPU s": alone["search CPU s"] / most["search CPU s"],
                    "+MB of one": most["+MB"],
                    "+MB of all": most["+MB shared"] + sum(each["+MB"] for each in found),
                    "bytes equal": "yes"
                    if all(each["bytes"] == alone["bytes"] for each in found)
                    else "NO",
                }
            )
            report(f"processes_{args.images}", rows, args.out)
        if args.keep:
            shutil.copyfile(folder / "found.npz", args.keep)


if __name__ == "__main__":
    main()
