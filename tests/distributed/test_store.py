# SPDX-License-Identifier: Apache-2.0
"""The connections to the store by which processes find each other."""

import os
import socket
import stat
from contextlib import suppress

import paddle

from ppcls_ise.distributed.store import new_connection


def options_of_connections(port: int) -> list[int]:
    """TCP_NODELAY of the sockets of this process that lead to ``port``."""
    found = []
    for number in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.fromfd(number, socket.AF_INET, socket.SOCK_STREAM) as connection:
                    if connection.getpeername()[1:2] == (port,):
                        tcp = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
                        found.append(connection.getsockopt(*tcp))
    return found


def test_nothing_is_held_back_on_the_way_to_the_store(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PADDLE_MASTER", f"127.0.0.1:{port}")
    served = paddle.base.core.TCPStore("127.0.0.1", port, True, 1)
    assert served.add("seen", 1) == 1 and options_of_connections(port) == [0]
    open_before = len(os.listdir("/dev/fd"))
    near, far = socket.socketpair()  # neither is one of the store's
    store = new_connection()
    assert store.add("seen", 2) == 3
    near.close(), far.close()
    assert options_of_connections(port) == [1, 1]
    assert len(os.listdir("/dev/fd")) == open_before + 2  # both ends, and no copy left behind
