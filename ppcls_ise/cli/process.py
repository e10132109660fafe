# SPDX-License-Identifier: Apache-2.0
"""How the command-line tools end: a sentence for known errors, never a hang."""

import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from ppcls_ise.compat import InputPipelineFailure
from ppcls_ise.errors import ReIDError

# Paddle says at every start that its C++ extensions would build faster with ccache.
warnings.filterwarnings("ignore", message="No ccache found")


def _end_process(arguments: Any) -> None:
    """Thread exceptions end the process.

    With ``num_workers: 0`` Paddle reads batches in a thread and waits forever for one that failed.
    """
    error = arguments.exc_value
    if not isinstance(error, OSError | ReIDError):
        traceback.print_exception(error)
    # A loader worker's error comes with the worker's traceback before its own last line.
    reason = str(error).rstrip().rsplit("\n", 1)[-1]
    sys.stderr.write(f"error: a batch could not be read: {reason}\n")
    sys.stderr.flush()
    for worker in multiprocessing.active_children():
        worker.kill()  # they would outlive this process
    os._exit(1)


_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def _end_with_parents() -> None:
    """Have the kernel end processes whose parent is gone (Linux): they would stay without end.

    Loader workers end with this process: Paddle's wait for their next task for ever. A process of
    ``paddle.distributed.launch`` is asked to stop when the launcher dies: it passes no signal on.
    """
    if sys.platform != "linux":
        return
    prctl = ctypes.CDLL(None).prctl
    os.register_at_fork(after_in_child=lambda: prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL)))
    if "PADDLE_TRAINER_ID" in os.environ:
        prctl(_SET_DEATH_SIGNAL, int(signal.SIGTERM))


def run(main: Callable[[], None]) -> None:
    """Run a tool: known errors, and files that cannot be read or written, are printed as one
    sentence with exit code 1, others with their traceback."""
    threading.excepthook = _end_process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names beyond the terminal's encoding
    _end_with_parents()
    try:
        main()
    except (ReIDError, OSError) as error:
        sys.exit(f"error: {error}")
    except (RuntimeError, SystemError) as error:
        if "DataLoader" not in str(error):
            raise
        reason = str(error).strip().rsplit("\n", 1)[-1]
        sys.exit(
            f"error: a process that reads images ended by itself or was killed ({reason}). Where "
            "memory is short, lower DataLoader.Train.loader.num_workers (Eval likewise)"
        )
    except InputPipelineFailure as failure:
        sys.exit(f"error: a training batch could not be made: {failure}")
