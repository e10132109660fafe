# SPDX-License-Identifier: Apache-2.0
"""What is installed, and on what."""

import platform
import shutil

import paddle

from ppcls_ise import compat
from ppcls_ise.checks.report import CheckFailed, Machine
from ppcls_ise.distributed.shared_arrays import SHARED_MEMORY
from ppcls_ise.engine import tf32
from ppcls_ise.utils.threads import core_count

# Of the machine code in PyPI's last CUDA build, without PTX for what came later (docs/en/gpu.md).
_LAST_OF_2_6 = (8, 9)
_RECIPE_BYTES = 256 * 3 * 256 * 128 * 4 * 4 * 2  # 4 workers with 2 batches of 256 images each
_RECIPE_CARD = 18.4e9


def installation(machine: Machine) -> str:
    """Versions; on a card, that this Paddle has code for it and that it computes."""
    facts = [
        f"Paddle {paddle.__version__}, PaddleClas {compat.version().removeprefix('paddleclas ')}",
        f"Python {platform.python_version()}, {core_count()} cores",
    ]
    if machine.device == "gpu":
        cuda = paddle.device.cuda
        capability = cuda.get_device_capability()
        if paddle.__version__.startswith("2.6") and capability > _LAST_OF_2_6:
            raise CheckFailed(
                f"Paddle {paddle.__version__} has no machine code for compute capability "
                f"{capability[0]}.{capability[1]}: install Paddle 3 for GPUs (docs/en/gpu.md)"
            )
        facts.append(
            f"{cuda.get_device_name()} ({capability[0]}.{capability[1]}), "
            f"{cuda.device_count()} card(s), CUDA {paddle.version.cuda()}, "
            f"cuDNN {paddle.version.cudnn()}"
        )
        if float(paddle.ones([8, 8]).matmul(paddle.ones([8, 8])).sum()) != 512.0:
            raise CheckFailed("a product of two matrices of ones is wrong on this card")
    return "; ".join([*facts, tf32.state(machine.device)])


def memory(machine: Machine) -> str:
    """/dev/shm and the card's memory against the needs of the full recipes."""
    facts = []
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        facts.append(f"/dev/shm {free / 1e9:.1f} GB free")
        if free < _RECIPE_BYTES:
            facts.append(
                f"the recipes for a card need {_RECIPE_BYTES / 1e9:.1f} GB (docker run "
                "--shm-size=2g, or loader.use_shared_memory=False)"
            )
    if machine.device == "gpu":
        total = paddle.device.cuda.get_device_properties().total_memory
        facts.append(f"card {total / 1e9:.0f} GB")
        if total < _RECIPE_CARD:
            facts.append(
                f"256 images a step need about {_RECIPE_CARD / 1e9:.0f} GB in float32: use mixed "
                "precision or fewer images (docs/en/gpu.md)"
            )
    return "; ".join(facts) or "nothing to look at on this system"
