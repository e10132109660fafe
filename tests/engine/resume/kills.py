# SPDX-License-Identifier: Apache-2.0
"""Kill training runs at random moments and resume them.

    python -m tests.engine.resume.kills ROOT OUT KILLS

Importing Paddle takes seconds, so one process imports everything and forks a child per life
before anything is computed. Half of the lives end by SIGKILL at a random time, half at a random
point inside the writing of a checkpoint. Prints JSON: kills by kind, trainings that were finished,
and whether each ended with the weights of an uninterrupted one.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import ppcls_ise
from tests.conftest import SYNTHETIC, lite_overrides

SETTINGS = {
    "Global__epochs": 3,
    "Global__save_step_interval": 1,
    "Clustering__k1": 6,
    "Clustering__k2": 2,
    "Clustering__eps": 0.4,
    "Clustering__min_samples": 3,
    "Clustering__warm_up_batches": 2,
}
_POINTS = ("fsync", "replace", "unlink", "half a state", "half a weight file")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at(function, count: int):
    """``function``, but the process is killed at its ``count``-th call."""
    calls = iter(range(1, count + 1))

    def wrapped(*arguments, **options):
        if next(calls, count) == count:
            die()
        return function(*arguments, **options)

    return wrapped


def arm(point: str, count: int) -> None:
    """Have this process die at a point inside the writing of a checkpoint."""
    import paddle

    def write_half(file, *content, **more) -> None:
        file = open(file, "wb") if isinstance(file, str) else file
        file.write(os.urandom(1000))
        file.flush()
        die()

    if point in ("fsync", "replace"):
        setattr(os, point, dying_at(getattr(os, point), count))
    elif point == "unlink":
        Path.unlink = dying_at(Path.unlink, count)
    elif point == "half a state":
        np.savez = write_half
    else:
        paddle.save = lambda content, path: write_half(path)


def live(root: Path, output: Path, log: Path, point: str | None, count: int) -> int:
    """Fork a child that trains, from the newest state if there is one; its process number."""
    child = os.fork()
    if child:
        return child
    stream = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    code = 1
    try:
        from ppcls_ise.config.overrides import get_config
        from ppcls_ise.engine.engine import UnsupervisedEngine

        if point:
            arm(point, count)
        options = dict(SETTINGS)
        folder = output / "RecModel"
        if any((folder / "resume").glob("*.safetensors")):
            options["Global__checkpoints"] = folder / "latest"
        overrides = lite_overrides(root, output, **options)
        UnsupervisedEngine(get_config(str(SYNTHETIC), overrides), mode="train").train()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def digest(output: Path) -> str:
    files = [output / "RecModel" / f"latest.{suffix}" for suffix in ("pdparams", "pdopt")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def main() -> None:
    root, out, wanted = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    ppcls_ise.register()
    ppcls_ise.engine.engine  # noqa: B018 - imported on first use: here, so that no child has to

    generator = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    started = time.perf_counter()
    _, status = os.waitpid(live(root, out / "straight", out / "straight.log", None, 0), 0)
    lifetime = time.perf_counter() - started
    assert status == 0, (out / "straight.log").read_text()[-3000:]
    straight = digest(out / "straight")
    kills = dict.fromkeys(("random time", *_POINTS), 0)
    same: list[bool] = []
    while True:
        output, log = out / f"killed_{len(same)}", out / f"killed_{len(same)}.log"
        enough = sum(kills.values()) >= wanted
        timed = generator.random() < 0.5 and not enough
        point = None if timed or enough else generator.choice(_POINTS)
        child = live(root, output, log, point, generator.randint(1, 12))
        if timed:
            time.sleep(generator.uniform(0.2, 1.0) * lifetime)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills["random time" if timed else point] += 1
            continue
        assert status == 0, log.read_text()[-3000:]
        same.append(digest(output) == straight)
        if enough:
            break
    print(json.dumps({"kills": kills, "same_weights": same}))


if __name__ == "__main__":
    main()
