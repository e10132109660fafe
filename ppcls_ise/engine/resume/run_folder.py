# SPDX-License-Identifier: Apache-2.0
"""A run's folder: numbered where that is wanted, and never that of another run."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from filelock import Timeout

from ppcls_ise.distributed.collectives import broadcast_array
from ppcls_ise.engine.resume.state_files import STATE_FOLDER
from ppcls_ise.errors import ConfigError, shown
from ppcls_ise.utils.files import locked, require_writable

COUNTED = "{run}"
_NUMBERED = re.compile(r"run(\d{1,9})")


def choose_output(options: Any, *, train: bool) -> str:
    """``Global.output_dir`` with a number in the place of a last part ``{run}``.

    A training gets the first folder behind those that there are, and makes it; one that is resumed
    from such a folder stays there. Anything else gets the newest.

    Raises:
        ConfigError: ``{run}`` is in another place, or nothing can be written.
    """
    path = Path(options["output_dir"])
    if COUNTED not in str(path):
        return str(path)
    parent = path.parent
    if path.name != COUNTED or COUNTED in str(parent):
        raise ConfigError(
            f"Global.output_dir: {COUNTED} can only be its last part, got {shown(path)}"
        )
    resumed = options.get("checkpoints")
    if resumed:
        inside = os.path.relpath(os.path.realpath(resumed), os.path.realpath(parent))
        if _NUMBERED.fullmatch(folder := Path(inside).parts[0]):
            return str(parent / folder)
    if not train:
        return str(parent / f"run{max(_newest(parent), 1)}")
    number = 0
    if dist.get_rank() == 0:
        require_writable(parent, "Global.output_dir")
        number = _newest(parent) + 1
        while not _make(parent / f"run{number}"):
            number += 1
    if dist.get_world_size() > 1:
        # As PaddleClas will do, but before it opens the log.
        paddle.set_device(options["device"])
        dist.init_parallel_env()
        number = int(broadcast_array(np.array([number]))[0])
    return str(parent / f"run{number}")


def require_free(folder: Path, checkpoints: str | None) -> None:
    """Raise if ``folder`` holds weights or states of a run that is not the one to be resumed.

    Raises:
        ConfigError: it does; names the ways out.
    """
    if checkpoints and os.path.realpath(Path(checkpoints).parent) == os.path.realpath(folder):
        return
    found = sorted([*folder.glob("*.pdparams"), *(folder / STATE_FOLDER).glob("[0-9]*")])
    if found:
        raise ConfigError(
            f"Global.output_dir: {shown(folder)} holds another run ({shown(found[0].name)}), and "
            f"no run replaces another. {_ways_out(folder)}"
        )


@contextmanager
def owned(folder: Path, checkpoints: str | None) -> Iterator[None]:
    """Have ``folder`` to oneself; process 0 does this for all.

    Raises:
        ConfigError: another run has it, or has left its files there (`require_free`).
    """
    if dist.get_rank():
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder))
        except Timeout as error:
            raise ConfigError(
                f"Global.output_dir: another run is writing into {shown(folder)} now. "
                f"{_ways_out(folder)}"
            ) from error
        require_free(folder, checkpoints)
        yield


def _ways_out(folder: Path) -> str:
    return (
        f"Continue that run (once it has ended) with -o Global.checkpoints={folder / 'latest'}, or "
        "give this one another folder: -o Global.output_dir=… (ending in /{run}, it is counted: "
        "run1, run2, …)"
    )


def _newest(parent: Path) -> int:
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    return max((int(match[1]) for match in map(_NUMBERED.fullmatch, names) if match), default=0)


def _make(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True
