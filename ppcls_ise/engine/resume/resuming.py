# SPDX-License-Identifier: Apache-2.0
"""Which saved state ``Global.checkpoints`` means."""

from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise import compat
from ppcls_ise.distributed.collectives import gather_arrays
from ppcls_ise.engine.callback import TrainingEngine
from ppcls_ise.engine.resume.state_files import StateFolder, published_problem, read_state_file
from ppcls_ise.engine.resume.training_state import check_state
from ppcls_ise.errors import WeightsError, shown
from ppcls_ise.weights.loading import read_checkpoint, read_progress

LATEST = "latest"
STATE_FOLDER = "resume"  # beside latest.pdparams


def find_state(engine: TrainingEngine, prefix: str) -> tuple[dict[str, Any], Path]:
    """The newest whole state that ``prefix`` means, and where it is from.

    ``<folder>/latest`` means the states in ``<folder>/resume``, newest first; one that is damaged
    is named in the log and left out. Where there is none, and for any other prefix, it is
    PaddleClas's three files, which know no more than weights and optimizer at the end of an epoch.

    Raises:
        WeightsError: nothing whole is found, it is of another model, or the processes found
            different states.
        DataError: it is of other training images.
    """
    state, source = _read(prefix)
    check_state(engine, state, str(source))
    position = [[state["epoch"], -1 if state["step"] is None else state["step"]]]
    if len(np.unique(gather_arrays(np.array(position)), axis=0)) > 1:
        raise WeightsError(
            f"the processes found different checkpoints at {prefix}: all machines have to see the "
            "same files"
        )
    if state["epoch"] >= engine.epochs:
        compat.logger().warning(
            f"{source} is of epoch {state['epoch']} and Global.epochs is {engine.epochs}: there is "
            "nothing left to train"
        )
    return state, source


def _read(prefix: str) -> tuple[dict[str, Any], Path]:
    if Path(prefix).is_dir() and (inside := _latest_inside(Path(prefix))):
        raise WeightsError(
            f"Global.checkpoints={shown(prefix)} is the folder of a run: name the checkpoint in "
            f"it, Global.checkpoints={shown(inside)}"
        )
    problem = published_problem(prefix)
    if Path(prefix).name == LATEST:
        for path in StateFolder(Path(prefix).parent / STATE_FOLDER).paths():
            try:
                state = read_state_file(path)
            except WeightsError as error:
                compat.logger().warning(f"{error}; trying the checkpoint before it")
                continue
            if problem:
                compat.logger().warning(f"{problem}; {path} is whole and is used instead")
            return state, path
    if problem:
        raise WeightsError(f"Global.checkpoints: {problem}, so it cannot be resumed")
    files = read_checkpoint(prefix)
    compat.logger().warning(
        f"{prefix} comes without an exact state in {STATE_FOLDER}/: weights and optimizer are "
        f"continued with epoch {files['epoch'] + 1}; pseudo-labels and memory begin anew"
    )
    parts = {key: files[key] for key in ("epoch", "model", "optimizers")}
    return {**parts, "step": None, "best": _best_metric(prefix, files)}, Path(prefix)


def _latest_inside(folder: Path) -> Path | None:
    """``latest`` of the run whose results are in ``folder`` or, as ``output_dir``, below it."""
    for place in (folder, folder / "RecModel"):
        if (place / f"{LATEST}.pdparams").is_file() or (place / STATE_FOLDER).is_dir():
            return place / LATEST
    return None


def _best_metric(prefix: str, files: dict[str, Any]) -> float:
    """The metric of the best model beside a checkpoint, else the checkpoint's own."""
    try:
        files = read_progress(str(Path(prefix).with_name("best_model")))
    except WeightsError:
        pass  # there is none
    return float(files.get("metric", -1.0))
