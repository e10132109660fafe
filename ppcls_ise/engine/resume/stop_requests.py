# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT as a request to stop at the next good moment."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# EX_TEMPFAIL ("try again later", which schedulers can requeue on), and what shells give for Ctrl-C.
EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}


class StopRequest:
    """Which signal asked this process to stop; 0 while none has."""

    signal_number = 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take note of the first signal; a second one ends the process at once, as it always did.

    Outside the main thread signals cannot be caught, and the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner and not request.signal_number:
            request.signal_number = number
            # Not the logger: it may be in the middle of a line.
            os.write(2, b"\nstopping after this step; a second signal stops at once\n")
        elif os.getpid() == owner or number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # A loader worker goes on after Ctrl-C, so that the step can be finished.

    previous = {number: signal.signal(number, handle) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, old in previous.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
