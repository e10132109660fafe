# SPDX-License-Identifier: Apache-2.0
"""The step of the authors' released code, for benchmarks/step.py; needs PyTorch, no Paddle.

    python benchmarks/peer_step.py CHECKOUT TOPK BATCH DIMENSION

A line "C memory" on stdin runs one step; the answer is a line with its seconds.
"""

import sys
import time
from types import ModuleType, SimpleNamespace


def main() -> None:
    checkout, topk, batch, dimension = sys.argv[1], *map(int, sys.argv[2:])
    sys.path.insert(0, checkout)
    import torch
    from step import INSTANCES, inputs

    torch.Tensor.cuda = lambda tensor: tensor  # the code asks for a GPU
    torch.nn.Module.cuda = lambda module: module
    # Its packages import torchvision and more on their way; these modules need none of it.
    for name in ("clustercontrast", "clustercontrast.models", "clustercontrast.utils"):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [f"{checkout}/{name.replace('.', '/')}"]
    from clustercontrast.models.cm import ClusterMemory
    from clustercontrast.trainers_support import ClusterContrastTrainerSupport

    args = SimpleNamespace(topk=topk, num_instances=INSTANCES, temp_lp_loss=0.6)
    steps = {}

    def make(clusters, rule):
        rows, names, prototypes = map(torch.from_numpy, inputs(batch, clusters, dimension))
        kind = "hard" if rule == "hard" else "ori"
        memory = ClusterMemory(dimension, clusters, 0.05, 0.2, sample_type=kind)
        memory.features = prototypes
        trainer = ClusterContrastTrainerSupport(args, None, memory)
        features = rows.requires_grad_()

        def step():
            supports, _ = trainer.generate_hard_samples(features, names, 0.0)
            support_names = names.repeat_interleave(topk)
            loss = memory(torch.cat((features, supports)), torch.cat((names, support_names)))
            loss = loss + 0.1 * trainer.criterion_lp(features, supports, names, support_names)
            features.grad = None
            loss.backward()

        return step

    for line in sys.stdin:
        clusters, rule = line.split()
        if (clusters, rule) not in steps:
            steps[clusters, rule] = make(int(clusters), rule)
        started = time.perf_counter()
        steps[clusters, rule]()
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
