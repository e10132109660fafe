# SPDX-License-Identifier: Apache-2.0
"""Whether training on a CPU computes backbone and neck as static graphs with oneDNN."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from ppcls_ise import plugin
from ppcls_ise.static_model import set_process_threads
from ppcls_ise.threads import static_threads

# Paddle 3.3.1 with oneDNN leaves the running statistics of batch norms as they were, and crashes at
# times with whole-network graphs; 2.6.2 computes the eager numbers.
_SOUND = "2.6"
# Below these, tracing costs more than it brings.
LEAST_PARAMETERS = 5_000_000
LEAST_IMAGES = 2_000
_TRIAL_SECONDS = 900


def use_static_graphs(config: Any, model: nn.Layer, images: int) -> bool:
    """Decide on ``Global.to_static``: True and False are followed, ``auto`` is tried.

    ``auto`` says no on a GPU, with Paddle 3, for a small network, for a short training, and where a
    trial step fails. The trial runs in a process of its own, because oneDNN crashes on some
    networks, and leaves weights, statistics and random numbers of this one alone.

    Args:
        config: of the engine.
        model: its ``RecModel``.
        images: that the whole training will compute.
    """
    wanted = config["Global"].get("to_static", "auto")
    if wanted != "auto":
        return wanted
    if config["Global"]["device"] != "cpu" or not paddle.__version__.startswith(_SOUND):
        return False
    parameters = sum(p.size for p in model.parameters() if not p.stop_gradient)
    if parameters < LEAST_PARAMETERS or images < LEAST_IMAGES:
        return False
    if problem := trial(config):
        plugin.logger().info(f"training computes eagerly: a trial static step failed: {problem}")
        return False
    plugin.logger().info(
        f"training computes static graphs with oneDNN on {static_threads()} threads"
    )
    paddle.set_flags({"FLAGS_use_mkldnn": True})
    set_process_threads(static_threads())
    return True


def make_static(model: nn.Layer) -> None:
    """Make backbone and neck static; not the head, whose memory changes."""
    # Not full_graph=True: traces in a tenth of the time, but crashes with oneDNN (Paddle 3.3.1).
    model.backbone = paddle.jit.to_static(model.backbone)
    if model.neck is not None:
        model.neck = paddle.jit.to_static(model.neck)


def trial(config: Any) -> str | None:
    """Compute one training step of this network in another process, eagerly and static.

    Returns:
        What went wrong, None if the two agree.
    """
    arch = json.loads(json.dumps(config["Arch"]))
    if "pretrained" in arch["Backbone"]:
        arch["Backbone"]["pretrained"] = False
    shape = config["Global"].get("image_shape") or [3, 256, 128]
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # A crash must not drag Paddle's pages of C++ traceback through the log.
    command = [sys.executable, "-W", "ignore", "-m", "ppcls_ise.static_trial"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps({"arch": arch, "image_shape": shape, "threads": static_threads()}),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no result after {_TRIAL_SECONDS} seconds"
    if done.returncode == 0:
        return None
    if done.returncode == 1:
        return (done.stderr.strip() or "no message").rsplit("\n", 1)[-1]
    return f"the process crashed (exit code {done.returncode})"
