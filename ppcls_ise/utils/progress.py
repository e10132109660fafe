# SPDX-License-Identifier: Apache-2.0
"""How far work is: a bar on a terminal, a line every so often elsewhere (notebooks, log files)."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TypeVar

from tqdm import tqdm

SECONDS = 30.0  # between two lines; shorter work says nothing
Item = TypeVar("Item")


class _Lines:
    """Makes lines of what a bar writes, which goes back to the start of its line each time."""

    encoding = "utf-8"

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if words := text.replace("\r", "").strip():
            self._stream.write(f"{words}\n")

    def flush(self) -> None:
        self._stream.flush()


def _bar(title: str, unit: str, total: int | None = None) -> Any:
    """A bar that is moved by its ``update``."""
    options: dict[str, Any] = {"desc": title, "unit": unit, "total": total, "leave": False}
    if sys.stderr.isatty():
        return tqdm(**options)
    return tqdm(
        **options,
        file=_Lines(sys.stderr),
        ascii=True,
        ncols=100,
        mininterval=SECONDS,
        maxinterval=SECONDS,
        delay=SECONDS,
    )


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar, or lines, moved by calling ``progress(done, total)``."""
    with _bar(title, unit) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def tracked(items: Iterable[Item], title: str, unit: str, total: int) -> Iterator[Item]:
    """The ``items``, of which there are ``total``, with a bar or lines."""
    with _bar(title, unit, total) as bar:
        for item in items:
            yield item
            bar.update(1)
