# SPDX-License-Identifier: Apache-2.0
"""Tables as CSV files, written as a whole."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ppcls_ise.utils.files import replacing


def cell(path: str) -> str:
    """A path as a cell of a table: the same file, but no program takes it for a formula."""
    return f"./{path}" if path[:1] in ("=", "+", "-", "@", "\t", "\r") else path


def write_csv(
    path: str | Path,
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    newline: str = "\n",
) -> None:
    """Write a table, atomically; None becomes an empty cell.

    Args:
        newline: at the end of each line; spreadsheets write ``\\r\\n``.

    Raises:
        OSError: it cannot be written there.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=newline)
    writer.writerow(header)
    writer.writerows(rows)
    with replacing(path) as scratch:
        scratch.write_text(text.getvalue(), encoding="utf-8", errors="surrogateescape", newline="")
