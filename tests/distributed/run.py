# SPDX-License-Identifier: Apache-2.0
"""One process of a training that writes down what it sees: see test_distributed.py.

Arguments: folder for the notes, what goes wrong on rank 1 ("", "killed" in its second step, or
"lost" images after the clustering), overrides.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import ppcls_ise  # noqa: E402
from ppcls_ise.cli.process import run  # noqa: E402

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "ISE_synthetic.yaml"


def main() -> None:
    ppcls_ise.register()
    import numpy as np
    import paddle.distributed as dist

    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine import Callback
    from ppcls_ise.engine.engine import UnsupervisedEngine

    notes, trouble, *overrides = sys.argv[1:]
    rank = int(os.environ.get("PADDLE_TRAINER_ID", 0))
    engine = UnsupervisedEngine(get_config(str(CONFIG), overrides))
    found: dict = {}
    steps = []

    def note_step(layer, inputs):
        if layer.training and layer.head.training and len(inputs) == 2:
            steps.append(inputs[1][:, 0].numpy())
            if rank == 1 and len(steps) == 2 and trouble == "killed":
                os.kill(os.getpid(), signal.SIGKILL)

    class Notes(Callback):
        def on_epoch_begin(self, engine, epoch):
            if rank == 1 and trouble == "lost":
                engine.train_dataset.images[:] = ["lost.jpg"] * len(engine.train_dataset)
            found[f"labels {epoch}"] = engine.train_dataset.pseudo_labels
            found[f"mixed {epoch}"] = engine.clustering.result.mixed_tracklets
            found[f"start {epoch}"] = engine.head.memory.prototypes.numpy()
            return True

        def on_epoch_end(self, engine, epoch):
            found[f"memory {epoch}"] = engine.head.memory.prototypes.numpy()
            found[f"steps {epoch}"] = np.stack(steps)
            steps.clear()
            for name, value in engine.plain_model.state_dict().items():
                found[f"weight {epoch} {name}"] = value.numpy().copy()

    extract = engine.clustering._extract

    def extract_and_note(engine, dataset):
        features = extract(engine, dataset)
        epoch = 1 + sum(name.startswith("features") for name in found)
        found[f"features {epoch}"] = features.values
        return features

    evaluate = engine.eval_func

    def evaluate_and_note(engine, epoch):
        value = evaluate(engine, epoch)
        ranks = engine.last_result.ranks
        found[f"result {epoch}"] = np.array([ranks.mAP, ranks.mINP, *ranks.cmc])
        return value

    engine.clustering._extract = extract_and_note
    engine.eval_func = evaluate_and_note
    engine.callbacks.append(Notes())
    engine.plain_model.register_forward_pre_hook(note_step)
    engine.train()
    Path(notes).mkdir(exist_ok=True, parents=True)
    np.savez(Path(notes, f"{dist.get_rank()}_of_{dist.get_world_size()}.npz"), **found)


if __name__ == "__main__":
    run(main)
