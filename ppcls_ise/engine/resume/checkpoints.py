# SPDX-License-Identifier: Apache-2.0
"""When a training run is saved, where it is resumed, and how it stops."""

import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle.distributed as dist

from ppcls_ise import compat
from ppcls_ise.compat import training_loop
from ppcls_ise.distributed.collectives import gather_arrays, largest, meet
from ppcls_ise.engine.callback import TrainingEngine
from ppcls_ise.engine.resume.run_folder import owned
from ppcls_ise.engine.resume.state_check import check_state
from ppcls_ise.engine.resume.state_files import (
    LATEST,
    STATE_FOLDER,
    StateFolder,
    publish,
    published_problem,
    read_state_file,
)
from ppcls_ise.engine.resume.training_state import (
    non_finite,
    num_bytes,
    restore_training_state,
    seed_step,
    training_state,
)
from ppcls_ise.errors import DivergenceError, WeightsError, shown
from ppcls_ise.utils.files import reading
from ppcls_ise.utils.stop_requests import EXIT_CODES, StopRequest, stop_requests
from ppcls_ise.weights import read_checkpoint, read_progress

_AGREE_STEPS = 10  # several processes ask each other only so often whether to stop


class Checkpoints:
    """The states of one training run.

    PaddleClas's own files (``latest.*``, ``best_model.*``, ``epoch_N.*``) are written as ever, but
    each as a whole and with a list of checksums. What is resumed is a file of its own in
    ``resume/``: after every epoch, every ``Global.save_step_interval`` steps, and when the run is
    asked to stop.

    Args:
        engine: an `UnsupervisedEngine` in training mode; see `training_state` for what is used.

    Raises:
        WeightsError, DataError: ``Global.checkpoints`` cannot be resumed.
    """

    def __init__(self, engine: TrainingEngine) -> None:
        options = engine.config["Global"]
        self._engine = engine
        self._interval = options.get("save_step_interval", 0)
        self._folder = StateFolder(
            engine.run_folder / STATE_FOLDER, keep=options.get("keep_checkpoints", 2)
        )
        self._best = -1.0
        self._epoch, self._step, self._first = 0, 0, 0  # of the epoch: number, steps done, begin
        self._steps_to_keep: int | None = None  # of the epoch, where features are computed
        self._failures: dict[str, str] = {}
        self._request = StopRequest()
        self._resumed: dict[str, Any] | None = None
        if prefix := options["checkpoints"]:
            self._resumed, self._source = find_state(engine, prefix.removesuffix(".pdparams"))

    # -- resuming -----------------------------------------------------------------------------

    def _restore(self) -> dict[str, Any]:
        """What PaddleClas's engine is to know of the resumed run; takes the place of its own
        loading."""
        state = self._resumed
        assert state is not None
        with reading(self._source, WeightsError, "cannot be resumed"):
            restore_training_state(self._engine, state)
        self._best = state["best"]
        if self._source.parent == self._folder.folder:
            self._folder.adopt(self._source)
        compat.logger().info(f"resumed {self._source}: {_position(state)}")
        return {"metric": self._best, "epoch": state["epoch"]}

    def begin_epoch(self, epoch: int) -> int | None:
        """Steps of ``epoch`` that the resumed state has behind it; None if it starts anew."""
        state, self._resumed = self._resumed, None
        step = state["step"] if state and state["epoch"] == epoch - 1 else None
        self._epoch = epoch
        self._steps_to_keep = None
        self._step = self._first = step or 0
        return step

    # -- in the course of training ------------------------------------------------------------

    def run(self, train: Callable[[], None]) -> None:
        """Train with all of the above in place.

        Raises:
            ConfigError: the folder is another run's.
            DivergenceError: see `losses_read`; it names the last good checkpoint.
            WeightsError: the last attempt to save something failed.
            SystemExit: a signal asked to stop (`stop_requests.EXIT_CODES`).
        """
        with (
            owned(self._engine.run_folder, self._engine.config["Global"]["checkpoints"]),
            stop_requests() as self._request,
            training_loop.checkpointing(self._restore, self.save_model),
        ):
            try:
                train()
            except DivergenceError as error:
                raise DivergenceError(f"{error} {self._advice()}") from error
            finally:
                self._request = StopRequest()
        if self._failures:
            raise WeightsError(" ".join(self._failures.values()))

    def before_step(self, step: int) -> None:
        """Called when ``step`` steps of the epoch are done and the next batch is asked for."""
        self._step = step
        if step >= len(self._engine.train_sampler):
            return
        self._stop_if_asked(step)
        if self._interval and step > self._first and step % self._interval == 0:
            self._save_state(self._epoch - 1, step)
        seed_step(self._engine.seed, self._epoch, step)

    def after_steps(self) -> None:
        """Called when the steps of the epoch are done, before it is evaluated."""
        self._steps_to_keep = len(self._engine.train_sampler)
        self.between_batches()

    def between_batches(self) -> None:
        """Called between batches that train nothing (of features, of the warm-up).

        Before the steps of an epoch there is nothing to save that was not saved after the one
        before; after them, the steps are.
        """
        self._stop_if_asked(self._steps_to_keep)

    def losses_read(self, values: Mapping[str, float]) -> None:
        """Called with the losses of every step, which PaddleClas reads for its log anyway.

        Raises:
            DivergenceError: one is NaN or infinite.
        """
        if bad := [
            f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)
        ]:
            raise DivergenceError(
                f"training diverged: {', '.join(bad)} at step {self._step + 1} of epoch "
                f"{self._epoch}."
            )

    def save_model(self, write: Callable[[Path], None], name: str, info: dict[str, Any]) -> None:
        """Takes the place of PaddleClas's saving, on all processes.

        Args:
            write: has PaddleClas write its files into a folder.
            name: best_model, epoch_N or latest.
            info: ``metric`` and ``epoch``.
        """
        if name == "best_model":
            self._best = float(info["metric"])
        if dist.get_rank() == 0:
            target = self._engine.run_folder
            scratch = target / "saving.tmp"  # what a killed process left there is overwritten
            with self._reported(f"{target / name}.*"):
                try:
                    self._require_finite()
                    shutil.rmtree(scratch, ignore_errors=True)
                    scratch.mkdir(parents=True)
                    write(scratch)
                    publish(scratch, target, name)
                    compat.logger().info(f"saved {target / name}.*")
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
        meet()
        if name == LATEST:
            self._save_state(info["epoch"], None)
            self._steps_to_keep = None
            self._stop_if_asked(None)

    # -- saving and stopping ------------------------------------------------------------------

    def _state(self, epoch: int, step: int | None) -> dict[str, Any]:
        return training_state(self._engine, epoch=epoch, step=step) | {"best": self._best}

    def _require_finite(self) -> None:
        weights = self._engine.plain_model.state_dict(use_hook=False)
        if bad := non_finite(weights):
            raise DivergenceError(
                f"training diverged: {len(bad)} of {len(weights)} weights are not finite "
                f"({', '.join(bad[:3])}) after step {self._step} of epoch {self._epoch}; they are "
                "not saved."
            )

    def _save_state(self, epoch: int, step: int | None) -> None:
        if dist.get_rank() == 0:
            with self._reported(str(self._folder.folder)):
                self._require_finite()
                self._folder.write(self._state(epoch, step))
        meet()

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """A failure to write is said, and training goes on; the next attempt may succeed."""
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(self._engine.run_folder).free
            needed = num_bytes(self._state(self._epoch, None))
            self._failures[what] = (
                f"{what} could not be saved: {error.strerror or error} (about "
                f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free)."
            )
            compat.logger().error(
                f"{self._failures[what]} {self._last_good()} Training goes on and tries again."
            )
        else:
            self._failures.pop(what, None)

    def _stop_if_asked(self, step: int | None) -> None:
        """End the run on all processes if one of them was asked to; ``step`` None: after an epoch,
        which has been saved."""
        number = largest(self._request.signal_number)
        if not number:
            return
        if step is not None:
            self._save_state(self._epoch - 1, step)
        if dist.get_world_size() > 1:
            dist.barrier()  # whoever ends first would have the launcher end the others
        compat.logger().warning(f"stopped by signal {number}. {self._last_good()}")
        raise SystemExit(1 if self._failures else EXIT_CODES[signal.Signals(number)])

    def _last_good(self) -> str:
        if self._folder.last is None:
            return "There is no checkpoint of this run yet."
        return (
            f"The last good checkpoint is {self._folder.last}; it is continued by "
            f"-o Global.checkpoints={self._engine.run_folder / LATEST}"
        )

    def _advice(self) -> str:
        config, memory = self._engine.config, self._engine.head.memory
        rate = config["Optimizer"]["lr"].get("learning_rate")
        causes = [
            f"Optimizer.lr.learning_rate is too high (now {rate})",
            f"Arch.Head.temperature is too low (now {memory.temperature})",
            "the weights it began with do not suit the network",
        ]
        if config.get("AMP"):
            causes.insert(0, "mixed precision overflows (AMP.use_amp=False)")
        return f"{self._last_good()} Likely causes: {'; '.join(causes)}."


def _position(state: Mapping[str, Any]) -> str:
    if state["step"] is None:
        return f"{state['epoch']} epochs done"
    return f"{state['epoch']} epochs and {state['step']} steps done"


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
        folder = StateFolder(Path(prefix).parent / STATE_FOLDER)
        if folder.has_old_states():
            compat.logger().warning(
                f"the states of version 0.1 in {folder.folder} are not read any more: finish that "
                "run with version 0.1, or go on with weights and optimizer alone, as now"
            )
        for path in folder.paths():
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
