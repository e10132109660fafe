# SPDX-License-Identifier: Apache-2.0
"""Blocking transfers between host and device in a training step, by method.

    python benchmarks/synchronizations.py

Counted on any device, see `ppcls_ise.checks.transfers`. "step" is head, losses, backward pass and
memory update; a layer of grouped batch norm is counted apart, ResNet-50 has 54 of them with the
neck's. The losses that the log prints are read besides, one transfer each.
"""

import argparse
from pathlib import Path

import common


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    args = parser.parse_args()

    import paddle
    from paddle import nn

    from ppcls_ise.checks.methods import METHODS, Step, make_batch
    from ppcls_ise.checks.transfers import transfers
    from ppcls_ise.layers import GroupedBatchNorm

    rows = []
    for method in METHODS:
        step = Step(method, make_batch())
        step()
        with transfers() as found:
            step()
        rows.append(row(method, found))
    layer, images = GroupedBatchNorm(nn.BatchNorm2D(8), 4), paddle.rand([8, 8, 4, 2])
    images.stop_gradient = False
    with transfers() as found:
        layer(images).sum().backward()
    rows.append(row("a layer of grouped batch norm", found))
    common.report("synchronizations", rows, args.out)


def row(name: str, found: list[str]) -> dict:
    to_host = sum(one.startswith("to host") for one in found)
    return {"": name, "to host": to_host, "to device": len(found) - to_host}


if __name__ == "__main__":
    main()
