# SPDX-License-Identifier: Apache-2.0
"""The precisions in which features are computed."""

import paddle

PRECISIONS = ("fp32", "bf16", "fp16")


def cpu_problem(precision: str) -> str | None:
    """Why a CPU, or this one, does not compute in ``precision``; None if it does."""
    if precision == "fp16":
        return "a CPU does not compute in fp16: set precision to fp32 or bf16"
    if precision == "bf16" and not paddle.base.core.supports_bfloat16():
        return "this CPU has no bfloat16 instructions: set precision to fp32"
    return None
