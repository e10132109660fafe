# SPDX-License-Identifier: Apache-2.0
"""Weights of the reference networks: each tensor from a seed that is made of its name."""

import json
import zlib
from pathlib import Path

import numpy as np

GEM_POWER = 3.0


def parameters_of(file: Path) -> list[dict]:
    """Name, shape, first value and sum of every tensor, from the file beside ``file``."""
    return json.loads(file.with_name(f"{file.stem}_params.json").read_text())["params"]


def regenerated(file: Path) -> dict[str, np.ndarray]:
    """The weights that the reference in ``file`` ran with, by PyTorch's names."""
    with np.load(file, allow_pickle=False) as content:
        salt = str(content["salt"])
        power = float(content["gem_p"]) if "gem_p" in content.files else GEM_POWER
    return {
        p["name"]: tensor(salt, p["name"], p["shape"], gem_power=power) for p in parameters_of(file)
    }


def tensor(salt: str, name: str, shape: list[int], *, gem_power: float = GEM_POWER) -> np.ndarray:
    """One tensor by the rules of the references."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    seed = zlib.crc32((salt + name).encode("utf-8"))
    z = np.random.default_rng(seed).standard_normal(shape)
    if name == "gap.p":
        z = np.full(shape, gem_power)
    elif name in ("feat_bn.bias", "bottleneck.bias"):
        z = np.zeros(shape)
    elif name.endswith("running_mean"):
        z = 0.1 * z
    elif name.endswith("running_var"):
        z = np.exp(0.2 * z)
    elif len(shape) == 4:
        z = z * np.sqrt(2.0 / np.prod(shape[1:]))
    elif len(shape) == 3:
        z = 0.1 * z
    elif len(shape) == 2:
        z = z / np.sqrt(shape[1])
    elif name.endswith("bn3.weight"):
        z = 0.3 * np.exp(0.1 * z)
    elif name.endswith(".weight"):
        z = np.exp(0.1 * z)
    else:
        assert name.endswith(".bias")
        z = 0.1 * z
    return z.astype(np.float32)


def assert_as_listed(file: Path, weights: dict[str, np.ndarray]) -> None:
    """The weights are those that the reference lists."""
    for p in parameters_of(file):
        value = weights[p["name"]]
        assert list(value.shape) == p["shape"]
        assert float(value.ravel()[0]) == np.float32(p["first"])
        np.testing.assert_allclose(
            value.astype(np.float64).sum(), p["sum"], rtol=1e-6, atol=1e-4, err_msg=p["name"]
        )
