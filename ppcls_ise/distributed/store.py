# SPDX-License-Identifier: Apache-2.0
"""The store by which the processes of a run found each other; process 0 has it."""

import os
import socket
import stat
from contextlib import suppress

import paddle
import paddle.distributed as dist


def own_store() -> paddle.base.core.TCPStore:
    """The connection that Paddle has."""
    store = paddle.base.core.create_or_get_global_tcp_store()
    _send_at_once()
    return store


def new_connection() -> paddle.base.core.TCPStore:
    """One more, since one serves one thread."""
    store = paddle.base.core.TCPStore(*_address(), False, 0)  # 0: nobody waits for anybody
    _send_at_once()
    return store


def _address() -> tuple[str, int]:
    address = os.environ.get("PADDLE_MASTER") or dist.ParallelEnv().trainer_endpoints[0]
    host, port = address.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


def _send_at_once() -> None:
    """Paddle writes a question to the store in pieces, and the kernel holds the second one back
    until the first is acknowledged, for 44 ms; without that (TCP_NODELAY) an answer takes 0.03.
    Paddle names no socket, so all of this process that lead to the store's port are asked."""
    port = _address()[1]
    for number in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):  # what is open changes meanwhile
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM) as connection:
                # of a local socket: its path, maybe empty
                if connection.getpeername()[1:2] == (port,):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
