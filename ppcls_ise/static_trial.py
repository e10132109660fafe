# SPDX-License-Identifier: Apache-2.0
"""The process behind `ppcls_ise.static_training.trial`: one step, eagerly and static.

    python -m ppcls_ise.static_trial < {"arch": …, "image_shape": [3, H, W], "threads": 2}

Exit code 0 if both agree; otherwise the last line of stderr says what happened.
"""

import copy
import json
import sys
from typing import Any

import numpy as np
import paddle
from paddle import nn

import ppcls_ise
from ppcls_ise import plugin
from ppcls_ise.layers import group_batch_norms
from ppcls_ise.static_model import set_process_threads
from ppcls_ise.static_training import make_static

_IMAGES = 4
_TOLERANCE = 0.01


def network(arch: dict[str, Any]) -> nn.Layer:
    """The network of the section ``Arch``, from the same random numbers every time."""
    paddle.seed(0)
    arch = copy.deepcopy(arch)
    model = plugin.load("ppcls.arch").build_model({"Arch": arch, "Global": {}})
    if arch.get("bn_group_size"):
        group_batch_norms(model, 2)  # several groups, as in training
    model.train()
    model.head = None
    return model


def step(model: nn.Layer, images: np.ndarray) -> dict[str, np.ndarray]:
    """Features, gradients and running statistics of one training step."""
    features = model(paddle.to_tensor(images))["features"]
    target = paddle.to_tensor(np.linspace(-1.0, 1.0, features.size, dtype=np.float32))
    (features.flatten() * target).sum().backward()
    seen = {"the features": features.numpy()}
    for name, tensor in model.named_parameters():
        if tensor.grad is not None:
            seen[f"the gradient of {name}"] = tensor.grad.numpy()
        elif tensor.stop_gradient:
            seen[name] = tensor.numpy()
    return seen


def difference(eager: dict[str, np.ndarray], static: dict[str, np.ndarray]) -> str | None:
    """Where the two steps deviate; None if they agree."""
    if eager.keys() != static.keys():
        return f"only one of the two has {', '.join(sorted(eager.keys() ^ static.keys())[:3])}"
    largest = max(np.abs(v).max() for k, v in eager.items() if k.startswith("the gradient"))
    for name, expected in eager.items():
        scale = largest if name.startswith("the gradient") else np.abs(expected).max()
        error = np.abs(static[name] - expected).max()
        if not error <= _TOLERANCE * scale:
            return f"{name} is off by {error:.2g}, the largest value is {scale:.2g}"
    return None


def main() -> None:
    options = json.load(sys.stdin)
    ppcls_ise.register()
    shape = (_IMAGES, *options["image_shape"])
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    eager = step(network(options["arch"]), images)
    paddle.set_flags({"FLAGS_use_mkldnn": True})
    set_process_threads(options["threads"])
    model = network(options["arch"])
    make_static(model)
    if problem := difference(eager, step(model, images)):
        sys.exit(problem)


if __name__ == "__main__":
    main()
