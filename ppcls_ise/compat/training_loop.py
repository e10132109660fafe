# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's training loop: batches, losses and checkpoints pass through here."""

import functools
import importlib
import inspect
import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ppcls_ise.compat import InputPipelineFailure, load, logger

LATE_SECONDS = 60.0  # without a batch, after which that is said


@contextmanager
def dynamic_graph() -> Iterator[None]:
    """Compute without tracing. A static graph that is first traced without gradients would serve
    the training steps too, which then learn nothing, silently (seen in Paddle 3.3.1)."""
    jit = importlib.import_module("paddle").jit
    jit.enable_to_static(False)
    try:
        yield
    finally:
        jit.enable_to_static(True)


def loss_logging_is_broken() -> bool:
    """Whether this PaddleClas logs scalars by ``x.numpy()[0]``, which fails on today's Paddle,
    where a loss has no dimension (2.4.2: yes, develop: no)."""
    utils = load("ppcls.engine.train.utils")
    return any(
        ".numpy()[0]" in inspect.getsource(function)
        for function in (utils.update_loss, utils.update_metric)
    )


def repair_step_log() -> None:
    """Rebind what ``train_epoch`` logs with; `loss_logging_is_broken` says why.

    ``ppcls.engine.train.train`` imported the functions by name, so they are rebound there. The
    losses are rebound in every version: a trainer with a ``losses_read`` hears of them.
    """
    train: Any = load("ppcls.engine.train.train")
    if getattr(train.update_loss, "rebound_by_ppcls_ise", False):
        return

    def update(trainer: Any, values: dict[str, Any], batch_size: int) -> dict[str, float]:
        numbers = {key: float(value) for key, value in values.items()}
        for key, number in numbers.items():
            if key not in trainer.output_info:
                trainer.output_info[key] = _meter(key)
            trainer.output_info[key].update(number, batch_size)
        return numbers

    def update_loss(trainer: Any, values: dict[str, Any], batch_size: int) -> None:
        numbers = update(trainer, values, batch_size)
        if hasattr(trainer, "losses_read"):
            trainer.losses_read(numbers)

    def update_metric(trainer: Any, out: Any, batch: Any, batch_size: int) -> None:
        if trainer.train_metric_func is not None:
            update(trainer, trainer.train_metric_func(out, batch[-1]), batch_size)

    log_info = train.log_info

    def log_from_first_step(trainer: Any, batch_size: int, epoch: int, step: int) -> None:
        log_info(trainer, batch_size, epoch, step + getattr(trainer, "first_step", 0))

    update_loss.rebound_by_ppcls_ise = True  # type: ignore[attr-defined]
    train.update_loss = update_loss
    train.log_info = log_from_first_step
    if loss_logging_is_broken():
        train.update_metric = update_metric


def repair_sgd() -> None:
    """Let 2.4.2's SGD be built on Python 3.11, whose ``inspect`` lost the ``getargspec`` that it
    calls. Its module gets an ``inspect`` of its own that has one."""
    module: Any = load("ppcls.optimizer.optimizer")
    if not hasattr(getattr(module, "inspect", None), "getargspec"):
        module.inspect = SimpleNamespace(**{**vars(inspect), "getargspec": inspect.getfullargspec})


def _said_when_late() -> threading.Timer:
    """A started timer that says what may be wrong; to be canceled when the batch is there."""

    def say() -> None:
        stopped = [str(p.pid) for p in multiprocessing.active_children() if _is_stopped(p.pid)]
        reason = (
            f"loader workers are stopped (`kill -CONT {' '.join(stopped)}` lets them go on)"
            if stopped
            else "the disk does not answer, the memory is used up, or the images are very slow to "
            "read (DataLoader.*.loader.num_workers reads more at a time)"
        )
        logger().warning(f"no batch of images for {LATE_SECONDS:g} s: {reason}. Still waiting")

    timer = threading.Timer(LATE_SECONDS, say)
    timer.daemon = True
    timer.start()
    return timer


def _is_stopped(process: int | None) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def batches_of(loader: Any) -> Iterator[Any]:
    """The batches of ``loader``, with a word in the log where one takes very long."""
    batches = iter(loader)
    while True:
        timer = _said_when_late()
        try:
            batch = next(batches, None)
        finally:
            timer.cancel()
        if batch is None:
            return
        yield batch


class _FromHook(BaseException):
    """Carries an error of `watched_batches`' hook past develop's ``except Exception``."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Batches:
    """The training loader as ``train_epoch`` sees it: a call before every batch, and failures that
    cannot be swallowed.

    Develop's ``train_epoch`` answers any ``Exception`` of the loader by starting it anew, which
    would repeat data silently, or without end. So a failure leaves here as `InputPipelineFailure`.
    """

    def __init__(self, loader: Any, first: int, before_step: Callable[[int], None]) -> None:
        self._loader, self._step, self._before_step = loader, first, before_step
        self._batches = iter(loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> "_Batches":
        return self

    def __next__(self) -> Any:
        try:
            self._before_step(self._step)
        except Exception as error:
            raise _FromHook(error) from error
        if self._step == len(self):
            raise StopIteration
        self._step += 1
        timer = _said_when_late()
        try:
            return next(self._batches)
        except Exception as error:
            raise InputPipelineFailure(str(error)) from error
        finally:
            timer.cancel()

    def close(self) -> None:
        """Have the loader end its workers, which it does when asked for a batch too many."""
        if self._step == len(self):
            next(self._batches, None)


@contextmanager
def watched_batches(engine: Any, first: int, before_step: Callable[[int], None]) -> Iterator[None]:
    """While in it, ``train_epoch`` trains the steps from ``first`` on, with a call before each.

    Develop counts the batches itself and keeps ``engine.train_dataloader_iter`` across epochs, so
    that an epoch could begin with batches drawn from the previous epoch's pseudo-labels; 2.4.2
    takes what the loader gives.

    Args:
        engine: its training sampler has to leave out the first ``first`` batches.
        before_step: called with the number of steps done, also after the last one in 2.4.2.
    """
    loader, total = engine.train_dataloader, getattr(engine, "iter_per_epoch", None)

    def before(step: int) -> None:
        if total is not None:
            engine.iter_per_epoch = total  # its loop has read it; what follows is the log
        before_step(step)

    batches = _Batches(loader, first, before)
    engine.first_step = first
    if total is None:
        engine.train_dataloader = batches
    else:
        engine.iter_per_epoch, engine.train_dataloader_iter = total - first, batches
    try:
        yield
    except _FromHook as carried:
        raise carried.error from None
    finally:
        batches.close()
        engine.train_dataloader = loader
        if total is not None:
            engine.iter_per_epoch = total
            del engine.train_dataloader_iter


@contextmanager
def checkpointing(
    resume: Callable[[], dict[str, Any]],
    save: Callable[[Callable[[Path], None], str, dict[str, Any]], None],
) -> Iterator[None]:
    """While in it, PaddleClas's engine loads and saves checkpoints through these functions.

    Its own ways have gaps: files are overwritten in place, anything pickled is executed, and the
    best metric is forgotten.

    Args:
        resume: fills the engine from ``Global.checkpoints``; returns ``metric`` (the best so far)
            and ``epoch`` (finished).
        save: called on every process with a function that has PaddleClas write its files into a
            folder, their name without suffix, and ``metric`` and ``epoch``.
    """
    engine: Any = load("ppcls.engine.engine")
    save_load: Any = load("ppcls.utils.save_load")
    init_model, save_model = engine.init_model, save_load.save_model

    def save_all(net: Any, optimizer: Any, info: Any, folder: str, **options: Any) -> None:
        def write(place: Path) -> None:
            logger().addFilter(_drop_saved_message)
            try:
                save_model(net, optimizer, info, str(place), **{**options, "model_name": ""})
            finally:
                logger().removeFilter(_drop_saved_message)

        save(write, options["prefix"], info)

    engine.init_model = lambda *_: resume()
    save_load.save_model = save_all
    try:
        yield
    finally:
        engine.init_model, save_load.save_model = init_model, save_model


def _drop_saved_message(record: logging.LogRecord) -> bool:
    return "Already save model in" not in record.getMessage()


@contextmanager
def mixed_precision_in(dtype: str | None) -> Iterator[None]:
    """While in it, PaddleClas computes mixed precision in ``dtype``: its own code names none, which
    means float16. None: as ever."""
    amp = importlib.import_module("paddle").amp
    auto_cast = amp.auto_cast
    if dtype is not None:
        amp.auto_cast = functools.partial(auto_cast, dtype=dtype)
    try:
        yield
    finally:
        amp.auto_cast = auto_cast


def loss_scaler(engine: Any) -> Any:
    """The scaler of mixed precision; None without (develop has a stand-in then, 2.4.2 nothing)."""
    scaler = getattr(engine, "scaler", None)
    return scaler if hasattr(scaler, "state_dict") else None


def meter_values(engine: Any) -> dict[str, list[float]]:
    """What the epoch's averages of losses stand at."""
    return {
        name: [float(part) for part in (meter.val, meter.avg, meter.sum, meter.count)]
        for name, meter in engine.output_info.items()
    }


def set_meter_values(engine: Any, values: dict[str, list[float]]) -> None:
    """Put back what `meter_values` returned."""
    for name, parts in values.items():
        meter = engine.output_info[name] = _meter(name)
        meter.val, meter.avg, meter.sum, meter.count = parts


def _meter(name: str) -> Any:
    return load("ppcls.utils.misc").AverageMeter(name, "7.5f")
