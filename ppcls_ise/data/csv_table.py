# SPDX-License-Identifier: Apache-2.0
"""Tables in CSV files, by the names of their columns."""

import csv
from collections.abc import Sequence

from ppcls_ise.errors import DataError, shown


def read_table(
    file: str, *, needed: Sequence[str], optional: Sequence[str] = (), others: bool = False
) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of every line under the header.

    Spaces around the name of a column do not count.

    Args:
        file: CSV with a header, UTF-8.
        needed, optional: names of columns.
        others: whether columns of other names are passed over; else they are an error.

    Raises:
        DataError: it is no such table; names the line or the column.
    """
    known = [*needed, *optional]
    # utf-8-sig: spreadsheets begin with a byte-order mark.
    with open(file, newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        try:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if cells]
        except csv.Error as error:
            raise DataError(f"{shown(file)} is no CSV file: {error}") from error
    if not lines or not set(needed) <= set(header):
        words = ",".join([*needed, *(f"[{name}]" for name in optional)])
        raise DataError(f"{shown(file)} needs lines under a header {words}")
    unknown = [name for name in header if name not in known]
    if unknown and not others:
        raise DataError(
            f"{shown(file)}: nothing reads the column {shown(unknown[0])!r}; there can be "
            f"{', '.join(known)}"
        )
    columns = {name: header.index(name) for name in known if name in header}
    for name in columns:
        if header.count(name) > 1:
            raise DataError(f"{shown(file)} has {header.count(name)} columns {name}: which counts?")
    rows = []
    for number, cells in lines:
        if len(cells) != len(header):
            raise DataError(
                f"{shown(file)}: line {number} has {len(cells)} cells, the header {len(header)}"
            )
        rows.append((number, {name: cells[place] for name, place in columns.items()}))
    return rows
