# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT as a request to stop at the next good moment."""

import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# EX_TEMPFAIL ("try again later", which schedulers can requeue on), and what shells give for Ctrl-C.
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
# Paddle's launcher sends its signal three times, 0.2 s apart: all of them are one request.
_REPEAT_SECONDS = 3.0


_handler: Callable[[int, FrameType | None], None] | None = None
_at_once = False


class StopRequest:
    """Which signal asked this process to stop; 0 while none has."""

    signal_number = 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take note of the first signal; one that comes more than 3 s after it ends the process at
    once, as it always did.

    Processes forked meanwhile do not end by these signals, so that the step can be finished; a
    loader's worker needs `keep_working` for it.

    Outside the main thread signals cannot be caught, and the request stays empty.
    """
    global _handler
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    owner = os.getpid()
    over = mmap.mmap(-1, 1)  # shared with the processes that are forked
    asked = 0.0

    def end_by(number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if os.getpid() != owner:
            if over[0] and number == signal.SIGTERM:
                os._exit(0)  # as Paddle's workers do; dead by a signal, they would be a failure
        elif _at_once:
            os.write(2, b"\nstopped before the first step: there is nothing to save\n")
            raise SystemExit(EXIT_CODES[signal.Signals(number)])
        elif not request.signal_number:
            request.signal_number, asked = number, time.monotonic()
            # Not the logger: it may be in the middle of a line.
            os.write(2, b"\nstopping after this step; a signal in 3 s or later stops at once\n")
        elif time.monotonic() - asked > _REPEAT_SECONDS:
            end_by(number)

    _handler = handle
    previous = {number: signal.signal(number, handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        _handler = None
        over[0] = 1  # from now on a worker may be ended by its parent
        for number, old in previous.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """While there is nothing to save: the first signal ends the process, by ``SystemExit`` in the
    midst of what it computes, instead of being noted."""
    global _at_once
    _at_once = True
    try:
        yield
    finally:
        _at_once = False


def keep_working(worker: int) -> None:
    """A loader's ``worker_init_fn``: the worker answers SIGTERM as `stop_requests` has it.

    Schedulers signal whole groups of processes. Paddle gives its workers a handler under which they
    die of that, and the run with them.
    """
    if _handler is not None:
        signal.signal(signal.SIGTERM, _handler)
