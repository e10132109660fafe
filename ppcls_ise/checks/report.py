# SPDX-License-Identifier: Apache-2.0
"""Running checks one after the other, and what came of them."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls_ise.errors import ReIDError
from ppcls_ise.utils.files import replacing

PASSED, FAILED, LEFT_OUT = "passed", "FAILED", "left out"


class CheckFailed(ReIDError):
    """A check found something wrong; the message says what and what to do."""


class LeftOut(Exception):
    """A check that this machine cannot run; the message says why."""


@dataclass(frozen=True)
class Machine:
    """What the checks run on.

    Attributes:
        device: ``cpu`` or ``gpu``.
        folder: for what they write, thrown away afterwards.
    """

    device: str
    folder: Path

    def require_card(self, why: str = "it compares a card with the CPU") -> None:
        """Raise `LeftOut` on a CPU."""
        if self.device != "gpu":
            raise LeftOut(f"needs a card: {why}")


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        name, title: of the check.
        status: ``passed``, ``FAILED`` or ``left out``.
        detail: what was measured, or what is wrong.
        seconds: that it took.
    """

    name: str
    title: str
    status: str
    detail: str
    seconds: float


Check = Callable[[Machine], str]


def run_checks(
    checks: Sequence[tuple[str, str, Check]],
    machine: Machine,
    *,
    progress: Callable[[str], None] = lambda title: None,
) -> list[Outcome]:
    """Run all ``checks`` (name, title, function); one that fails does not end the others.

    Args:
        progress: called with the title of each before it runs.
    """
    outcomes = []
    for name, title, check in checks:
        progress(title)
        started = time.perf_counter()
        try:
            status, detail = PASSED, check(machine)
        except LeftOut as reason:
            status, detail = LEFT_OUT, str(reason)
        except ReIDError as error:
            status, detail = FAILED, str(error)
        except Exception as error:  # whatever a broken installation raises is what we are here for
            last = (str(error).strip() or "no message").rsplit("\n", 1)[-1]
            status, detail = FAILED, f"{type(error).__name__}: {last}"
        outcomes.append(Outcome(name, title, status, detail, time.perf_counter() - started))
    return outcomes


def require_close(
    what: str, found: np.ndarray | float, wanted: np.ndarray | float, tolerance: float
) -> float:
    """The largest deviation in parts of the largest value of ``wanted``.

    Raises:
        CheckFailed: it is above ``tolerance``, or not a number.
    """
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-12)
    error = float(np.abs(found - wanted).max(initial=0.0)) / scale
    if not error <= tolerance:
        raise CheckFailed(f"{what} is off by {error:.1e} of its largest value, not {tolerance:.0e}")
    return error


def table(outcomes: Sequence[Outcome]) -> str:
    """Text for a screen, a line or more per check, and a last line that sums up."""
    width = max(len(outcome.title) for outcome in outcomes)
    lines = [
        f"{outcome.status:<8}  {outcome.title:<{width}}  {outcome.seconds:5.1f} s  {outcome.detail}"
        for outcome in outcomes
    ]
    counts = {kind: sum(o.status == kind for o in outcomes) for kind in (PASSED, FAILED, LEFT_OUT)}
    return "\n".join([*lines, ", ".join(f"{n} {kind}" for kind, n in counts.items())])


def write_json(path: str | Path, machine: Machine, outcomes: Sequence[Outcome]) -> None:
    """The same for programs, atomically."""
    content: dict[str, Any] = {
        "device": machine.device,
        "passed": not any(outcome.status == FAILED for outcome in outcomes),
        "checks": [asdict(outcome) for outcome in outcomes],
    }
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
