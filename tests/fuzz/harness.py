# SPDX-License-Identifier: Apache-2.0
"""How many cases are tried, how bytes are damaged, and what must never happen meanwhile.

``FUZZ_EXAMPLES=20000 pytest tests/fuzz`` tries that many per test, other ones in every run.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_CHOSEN = os.environ.get("FUZZ_EXAMPLES")
fuzz = settings(
    max_examples=int(_CHOSEN or 100),
    derandomize=_CHOSEN is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# Python reports these before it does them (sys.audit).
_FORBIDDEN = (
    "exec import marshal.loads pickle.find_class ctypes.dlopen socket.connect subprocess.Popen "
    "os.system os.exec os.posix_spawn os.fork os.remove os.rename os.mkdir os.chmod"
).split()
_events: list[str] | None = None


def _watch(event: str, arguments: tuple) -> None:
    if _events is None:
        return
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if event in _FORBIDDEN or writes:
        _events.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_watch)


@contextmanager
def nothing_happens() -> Iterator[None]:
    """Inside, no code is run or imported, no process or connection made, no file written."""
    global _events
    _events = []
    try:
        yield
        assert _events == []
    finally:
        _events = None


@st.composite
def damaged(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """One of the samples with up to eight places changed, cut out, repeated or filled in."""
    content = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.integers(0, 8))
        match draw(st.sampled_from(["change", "cut", "repeat", "insert", "end"])):
            case "change":
                content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
            case "cut":
                del content[place : place + length]
            case "repeat":
                content[place:place] = content[place : place + length]
            case "insert":
                content[place:place] = draw(st.binary(max_size=8))
            case "end":
                del content[len(content) - length :]
    return bytes(content)
