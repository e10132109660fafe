# SPDX-License-Identifier: Apache-2.0
"""Seconds of a ResNet-50 training step on a CPU: eager, and as static graphs with oneDNN.

    python benchmarks/training_step.py [--images 8] [--repeat 3]

Every way is a process of its own, because the static one crashes with some versions of Paddle;
they take turns. "same numbers" is what `ppcls_ise.static_trial` finds.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import common

ARCH = {
    "name": "RecModel",
    "Backbone": {"name": "ResNet50_last_stage_stride1"},
    "BackboneStopLayer": {"name": "avg_pool"},
    "Neck": {"name": "ReIDNeck", "num_features": 2048},
    "Head": {"name": "PLIHead"},
}
SHAPE = [3, 256, 128]
WAYS = {"eager, 1 thread": (False, 1), "static + oneDNN, 1 thread": (True, 1)}
if common.core_count() > 1:
    WAYS[f"eager, {common.core_count()} threads"] = (False, common.core_count())
    WAYS[f"static + oneDNN, {common.core_count()} threads"] = (True, common.core_count())


def serve(static: bool, threads: int, count: int) -> None:
    """Make one step for every line of stdin and answer with its loss."""
    import numpy as np
    import paddle

    import ppcls_ise
    from ppcls_ise.static_model import set_process_threads
    from ppcls_ise.static_training import make_static
    from ppcls_ise.static_trial import network

    ppcls_ise.register()
    set_process_threads(threads)
    model = network(ARCH)
    if static:
        paddle.set_flags({"FLAGS_use_mkldnn": True})
        make_static(model)
    optimizer = paddle.optimizer.Adam(3e-4, parameters=model.parameters())
    images = np.random.default_rng(0).standard_normal((count, *SHAPE), dtype=np.float32)
    for _ in sys.stdin:
        rows = paddle.nn.functional.normalize(model(paddle.to_tensor(images))["features"])
        loss = paddle.matmul(rows, rows, transpose_y=True).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        sys.stdout.write(f"{float(loss)}\n")
        sys.stdout.flush()


class Worker:
    """A process that makes a step when asked."""

    def __init__(self, static: bool, threads: int, count: int) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--serve"]
        self._process = subprocess.Popen(
            [*command, json.dumps([static, threads, count])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.alive = True

    def __call__(self) -> None:
        """One step; nothing once the process has crashed."""
        try:
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
            while (line := self._process.stdout.readline()) and not _is_number(line):
                pass  # what Paddle's libraries print
            self.alive = bool(line)
        except BrokenPipeError:
            self.alive = False

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _is_number(line: str) -> bool:
    return line.strip().replace(".", "", 1).replace("e-", "", 1).isdigit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*json.loads(arguments.serve))
        return
    workers = {way: Worker(*options, arguments.images) for way, options in WAYS.items()}
    started = time.perf_counter()
    for worker in workers.values():
        worker()
    common_seconds = time.perf_counter() - started
    seconds = common.alternate(workers, repeat=arguments.repeat, warm_up=1)
    for worker in workers.values():
        worker.close()

    import ppcls_ise
    from ppcls_ise.static_training import trial

    ppcls_ise.register()
    problem = trial({"Arch": ARCH, "Global": {"image_shape": SHAPE}})
    eager = seconds["eager, 1 thread"]
    rows = [
        {
            "way": way,
            "s per step": value if workers[way].alive else None,
            "images/s": arguments.images / value if workers[way].alive else None,
            "times eager": eager / value if workers[way].alive else None,
            "same numbers": "" if way.startswith("eager") else problem or "yes",
        }
        for way, value in seconds.items()
    ]
    print(f"first step of all ways: {common_seconds:.1f} s (tracing included)")
    common.report("training_step", rows)
    shown = {"ResNet-50": {row["way"]: row["images/s"] for row in rows if row["images/s"]}}
    common.bars("training_step", shown, ylabel="training images per second")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
