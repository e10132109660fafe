# SPDX-License-Identifier: Apache-2.0
"""A folder of generated images that is there complete, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ppcls_ise.errors import DataError

PARAMETERS_FILE = "synthetic.json"


def _existing(out: Path, names: list[str], description: dict) -> str:
    """Why ``out`` cannot be reused, or the empty text when it can."""
    try:
        found = json.loads((out / PARAMETERS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"it holds no readable {PARAMETERS_FILE}"
    if found != description:
        return f"its {PARAMETERS_FILE} states other parameters"
    missing = sum(not (out / name).is_file() for name in names)
    if missing:
        return f"{missing} of its {len(names)} images are missing"
    return ""


def publish(
    out: str | os.PathLike,
    description: dict,
    names: list[str],
    write: Callable[[Path], None],
    *,
    overwrite: bool,
) -> bool:
    """Make the folder ``out`` complete or not at all: written under another name and renamed.

    Args:
        out: the folder.
        description: what determines the content; stored as ``synthetic.json``.
        names: the images that have to be there, with their folder.
        write: fills an empty folder.
        overwrite: replace a generated data set of other parameters.

    Returns:
        Whether a complete data set of the same description was there already.

    Raises:
        DataError: ``out`` exists with other content.
    """
    target = Path(out).expanduser().resolve()
    occupied = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if occupied:
        problem = _existing(target, names, description)
        if not problem and not overwrite:
            return True
        if not overwrite:
            raise DataError(
                f"{target} exists and cannot be reused: {problem}. Choose another folder (--out) "
                "or replace it (--overwrite; for the demo, choose another Global.image_root)."
            )
        if not (target / PARAMETERS_FILE).is_file():
            raise DataError(
                f"{target} exists and was not written by this generator ({problem}); --overwrite "
                "replaces only generated data sets. Choose another folder (--out)."
            )

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        write(partial)
        text = json.dumps(description, indent=2) + "\n"
        (partial / PARAMETERS_FILE).write_text(text, encoding="utf-8")
        if occupied:
            old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return False
