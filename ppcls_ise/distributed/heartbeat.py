# SPDX-License-Identifier: Apache-2.0
"""Signs of life: a process that stops ends the others, whatever they are waiting in.

A process that dies is noticed by its launcher. One that is stopped, or whose machine is gone, is
not: the others would wait for it for ever in the search (`meet` has no limit), and on cards in a
collective operation. So a thread of every process counts up a number in the store by which the
processes found each other, and reads those of the others.
"""

import atexit
import logging
import os
import threading
from contextlib import suppress

import paddle
import paddle.distributed as dist

from ppcls_ise.distributed.store import new_connection

_KEY = "ppcls_ise/alive"
_PAUSE = 1.0  # seconds between two signs of life
SILENCE = 60  # seconds after which a process counts as gone
_ENDED = 1 << 40
_LOST = 1  # exit code


class _Heartbeat:
    """Counts seconds in which this process ran, so that stopping all of them harms nobody."""

    def __init__(self, store: paddle.base.core.TCPStore) -> None:
        self._store, self._lock = store, threading.Lock()
        self._rank, self._size = dist.get_rank(), dist.get_world_size()
        self._silent = [0] * self._size
        self._ended: set[int] = set()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True, name=f"heartbeat {work.__name__}")
            for work in (self._exchange, self._watch)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self._end)

    def _exchange(self) -> None:
        counts = [-1] * self._size
        while len(self._ended) < self._size:
            try:
                for rank in range(self._size):
                    with self._lock:
                        count = self._store.add(f"{_KEY}/{rank}", int(rank == self._rank))
                    if count >= _ENDED:
                        self._ended.add(rank)
                    elif count != counts[rank]:
                        counts[rank], self._silent[rank] = count, 0
            except Exception:  # process 0 has ended, well or badly: that is its launcher's affair
                self._ended.update(range(self._size))
            if self._over.wait(_PAUSE):
                return

    def _watch(self) -> None:
        """In a thread of its own: the store does not answer any more if process 0 is gone."""
        while len(self._ended) < self._size and not self._over.wait(_PAUSE):
            for rank in range(self._size):
                self._silent[rank] += 1
            gone = [n for n in range(self._size) if self._silent[n] > SILENCE]
            gone = [rank for rank in gone if rank not in self._ended]
            if gone:
                # Without process 0, which has the store, there is no news of anybody.
                logging.getLogger(__name__).critical(
                    "process %d has given no sign of life for %d s (it was stopped, its machine is "
                    "gone, or the network): this process ends, too",
                    0 if self._rank in gone else gone[0],
                    SILENCE,
                )
                os._exit(_LOST)

    def _end(self) -> None:
        """After a regular end the others need not wait for signs of life. A thread that is still in
        the store when the interpreter ends would abort it."""
        with self._lock, suppress(Exception):  # process 0 may have ended before
            self._store.add(f"{_KEY}/{self._rank}", _ENDED)
        self._over.set()
        for thread in self._threads:
            thread.join(5 * _PAUSE)


_heartbeat: _Heartbeat | None = None


def start() -> None:
    """Begin to give and to expect signs of life, once; nothing in a single process."""
    global _heartbeat
    if _heartbeat is not None or dist.get_world_size() == 1:
        return
    _heartbeat = _Heartbeat(new_connection())
