# SPDX-License-Identifier: Apache-2.0
"""Progress bars for work that reports how far it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar moved by calling ``progress(done, total)``; shown on terminals only."""
    with tqdm(desc=title, unit=unit, leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
