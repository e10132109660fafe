# SPDX-License-Identifier: Apache-2.0
"""One training step without the network: head, memory and losses against their matrix products.

    python benchmarks/step.py --threads 1 2
    python benchmarks/step.py --peer ISE-ReID --peer-python peer/bin/python

The step is the forward pass of the head and the losses, the backward pass to the features and the
update of the memory. Beside it run, in turns and in the same process, with random matrices:

* ``products``: the large products that the step calls, and nothing else;
* ``formulas``: one product for each one in the formulas (CC (4) to ISE (10)): the search for
  neighbors, the logits of samples and supports, their gradient, and the three of the
  label-preserving loss.

``--peer`` measures a checkout of the authors' code (PyTorch) in turns with ours, in a process of
its own (`peer_step.py`): its memory, its search for supports and its label-preserving loss, on the
same inputs.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np

SELF = Path(__file__).resolve()
INSTANCES = 16


def inputs(batch: int, clusters: int, dimension: int) -> tuple[np.ndarray, ...]:
    """Features [B, D], labels [B] and prototypes [C, D]; each sample is near its prototype."""
    generator = np.random.default_rng(0)
    names = generator.choice(clusters, batch // INSTANCES, replace=False)
    prototypes = unit(generator.standard_normal((clusters, dimension), np.float32))
    labels = np.repeat(names, INSTANCES)
    noise = unit(generator.standard_normal((batch, dimension), np.float32))
    return unit(prototypes[labels] + noise), labels, prototypes


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def our_step(args: argparse.Namespace, clusters: int, rule: str) -> Callable[[], None]:
    import paddle

    from ppcls_ise.heads import ClusterContrastHead, PLIHead
    from ppcls_ise.losses import ClusterContrastLoss, LPLoss

    rows, names, prototypes = inputs(args.batch, clusters, args.dimension)
    features = paddle.to_tensor(rows, stop_gradient=False)
    labels = paddle.to_tensor(names).unsqueeze(1)
    if args.topk:
        head = PLIHead(momentum=0.2, memory=rule, topk=args.topk)
    else:
        head = ClusterContrastHead(momentum=0.1, memory=rule)
    losses = [(1.0, ClusterContrastLoss())] + [(0.1, LPLoss())] * bool(args.topk)
    head.memory.reset(prototypes)
    head.train()

    def step() -> None:
        head.start_epoch(1, 1, 2)
        output = {"logits": head(features, labels)}
        terms = [w * value for w, loss in losses for value in loss(output, labels).values()]
        sum(terms).backward()
        features.clear_grad()

    return step


def products(args: argparse.Namespace, clusters: int, plain: bool) -> Callable[[], None]:
    import paddle

    batch, supports = args.batch, args.batch * args.topk
    features, more = (paddle.randn([n, args.dimension]) for n in (batch, max(supports, 1)))
    memory = paddle.randn([clusters, args.dimension])
    every = paddle.concat([features, more]) if supports else features
    gradient = paddle.randn([len(every) if plain else batch, clusters])
    small = paddle.randn([batch, max(supports, 1)])

    def run() -> None:
        if supports:
            paddle.matmul(features, memory, transpose_y=True)
            paddle.matmul(features, more, transpose_y=True)
            paddle.matmul(small, more)
            paddle.matmul(small, features, transpose_x=True)
        paddle.matmul(every if plain or not supports else more, memory, transpose_y=True)
        paddle.matmul(gradient, memory)

    return run


def start_peer(args: argparse.Namespace) -> subprocess.Popen:
    command = [args.peer_python, SELF.with_name("peer_step.py"), args.peer]
    command += map(str, (args.topk, args.batch, args.dimension))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(peer: subprocess.Popen, question: str) -> Callable[[], None]:
    def step() -> None:
        print(question, file=peer.stdin, flush=True)
        if not peer.stdout.readline():
            raise RuntimeError("the peer's process ended; its message is above")

    return step


def measure(args: argparse.Namespace) -> list[dict]:
    import paddle

    paddle.set_device("cpu")
    rows = []
    peer = start_peer(args) if args.peer and args.topk else None
    for clusters in args.clusters:
        runs = {rule: our_step(args, clusters, rule) for rule in ("hard", "mean")}
        runs["products"] = products(args, clusters, plain=False)
        if args.topk:
            runs["formulas"] = products(args, clusters, plain=True)
        if peer:
            runs |= {f"peer {r}": ask(peer, f"{clusters} {r}") for r in ("hard", "mean")}
        ms = {k: 1000 * v for k, v in common.alternate(runs, repeat=args.repeat).items()}
        for rule in ("hard", "mean"):
            row = {"threads": args.threads[0], "C": clusters, "K": args.topk, "memory": rule}
            row |= {"step ms": ms[rule], "products ms": ms["products"]}
            row["ratio"] = ms[rule] / ms["products"]
            row["formulas ms"] = ms.get("formulas", ms["products"])
            row["ratio to formulas"] = ms[rule] / row["formulas ms"]
            if peer:
                row |= {"authors ms": ms[f"peer {rule}"]}
                row |= {"authors / ours": row["authors ms"] / row["step ms"]}
            rows.append(row)
    if peer:
        peer.stdin.close()
        peer.wait()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clusters", type=int, nargs="+", default=[700, 2000, 20000])
    parser.add_argument("--topk", type=int, default=1, help="K; 0 for Cluster Contrast")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peer", help="checkout of ISE-ReID")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with PyTorch")
    parser.add_argument("--out", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    if "OMP_NUM_THREADS" in os.environ and len(args.threads) == 1:
        print(json.dumps(measure(args)))
        return
    rows = []
    for threads in args.threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        rows += common.apart(SELF, [*sys.argv[1:], "--threads", str(threads)])
    name = f"step_k{args.topk}"
    common.report(name, rows, args.out)
    shown = {"step": "step ms", "products": "products ms", "formulas": "formulas ms"}
    shown |= {"authors": "authors ms"} if args.peer and args.topk else {}
    common.bars(
        name,
        {
            f"C = {row['C']:,}\n{row['memory']}": {k: row[v] for k, v in shown.items()}
            for row in rows
            if row["threads"] == args.threads[-1]
        },
        ylabel=f"ms, K = {args.topk}, {args.threads[-1]} thread(s)",
        log=True,
        folder=args.out,
    )


if __name__ == "__main__":
    main()
