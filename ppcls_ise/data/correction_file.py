# SPDX-License-Identifier: Apache-2.0
"""The CSV file of corrections that the page of clusters exports."""

import os
from collections.abc import Sequence
from pathlib import Path

from ppcls_ise.clustering.corrections import Correction
from ppcls_ise.data.csv_table import read_table
from ppcls_ise.errors import ConfigError, DataError, shown
from ppcls_ise.utils.tables import cell, write_csv

_COLUMNS = ("action", "cluster", "with", "path")
_USED = {"merge": ("with",), "split": (), "remove": ("path",)}


def read_corrections(file: str | os.PathLike[str]) -> list[Correction]:
    """Lines ``merge,7,3,``, ``split,5,,``, ``remove,4,,`` and ``remove,4,,PATH`` under a header
    ``action,cluster,with,path``.

    Raises:
        ConfigError: there is no such file.
        DataError: a line that is none of these; names it.
    """
    if not os.path.isfile(file):
        raise ConfigError(f"--corrections: there is no file {shown(file)}")
    found = []
    rows = read_table(os.fspath(file), needed=_COLUMNS[:2], optional=_COLUMNS[2:])
    for line, cells in rows:
        where = f"{shown(file)}: line {line}"
        action = cells["action"].strip()
        if action not in _USED:
            raise DataError(f"{where}: the action is {' or '.join(_USED)}, not {shown(action)!r}")
        for column in _COLUMNS[2:]:
            given = bool(cells.get(column, "").strip())
            if given and column not in _USED[action]:
                raise DataError(f"{where}: {action} has no {column}: leave that cell empty")
        cluster = _number(cells["cluster"], where)
        other = _number(cells.get("with", ""), where) if action == "merge" else None
        if other == cluster:
            raise DataError(f"{where}: cluster {cluster} with itself")
        found.append(Correction(action, cluster, other, _path(cells.get("path", ""))))
    return found


def write_corrections(file: Path, corrections: Sequence[Correction]) -> None:
    """The inverse of `read_corrections`, atomically.

    Raises:
        OSError: it cannot be written there.
    """
    rows = [(action, cluster, other, cell(path)) for action, cluster, other, path in corrections]
    write_csv(file, _COLUMNS, rows, newline="\r\n")


def _number(text: str, where: str) -> int:
    text = text.strip()
    if not (text.isdecimal() and len(text) <= 9):
        raise DataError(f"{where}: a cluster is a whole number, not {shown(text)!r}")
    return int(text)


def _path(text: str) -> str:
    """A path without the ./ that keeps a spreadsheet from taking it for a formula."""
    return text[2:] if text == cell(text[2:]) else text
