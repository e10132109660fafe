# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: alternating runs, peak memory, the machine, table, JSON and plot."""

import gc
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))

from ppcls_ise.utils.threads import core_count  # noqa: E402

_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "numpy", "scipy", "scikit-learn", "faiss-cpu")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and package versions."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"processor": processor, "cores": core_count(), "versions": versions}


def alternate(
    runs: dict[str, Callable[[], Any]],
    *,
    repeat: int = 3,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each run; they take turns, so that a busy machine slows all of them.

    ``clock`` may be ``time.process_time``: seconds of all cores together, which others on the
    machine hardly change.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warm_up + repeat):
        for name, run in runs.items():
            started = clock()
            run()
            if turn >= warm_up:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


class PeakMemory:
    """Resident memory of this process above what it was on entry, in MB (Linux).

        with PeakMemory() as memory:
            work()
        memory.added

    The kernel's own high-water mark where it can be reset, else samples every 5 ms.
    """

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        self.added = 0.0
        self._start = status("VmRSS")
        self._exact = _reset_peak()
        self._done = threading.Event()
        self._highest = self._start
        if not self._exact:
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._exact:
            self._highest = status("VmHWM")
        else:
            self._done.set()
            self._sampler.join()
        self.added = max(0.0, (self._highest - self._start) / 1024)

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self._highest = max(self._highest, status("VmRSS"))


def status(field: str) -> int:
    """A field of /proc/self/status that the kernel counts in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def apart(
    script: str | Path, arguments: Sequence[str], *, python: str = sys.executable
) -> dict[str, Any]:
    """Run ``script`` in a process of its own, so that memory starts from nothing; its last line of
    output has to be JSON."""
    command = [python, str(script), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table; floats to three significant digits."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in rows:
        lines.append(f"| {' | '.join(_text(row.get(name)) for name in names)} |")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def report(name: str, rows: Sequence[dict[str, Any]], folder: Path = RESULTS) -> None:
    """Print the machine and the table, and write them to ``<folder>/<name>.json``."""
    content = {"machine": machine(), "rows": list(rows)}
    print(json.dumps(content["machine"]))
    print(table(rows))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def bars(
    name: str,
    groups: dict[str, dict[str, float]],
    *,
    ylabel: str,
    log: bool = False,
    folder: Path = RESULTS,
) -> None:
    """Bar chart ``<folder>/<name>.png``: one group of bars per key, one bar per inner key."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(inner for group in groups.values() for inner in group))
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for place, inner in enumerate(names):
        heights = [group.get(inner, float("nan")) for group in groups.values()]
        positions = [at + (place + 0.5) / (len(names) + 1) for at in range(len(groups))]
        shown = axes.bar(positions, heights, width=0.9 / (len(names) + 1), label=inner)
        axes.bar_label(shown, fmt="{:.3g}", fontsize=7)
    axes.set_xticks([at + 0.5 * len(names) / (len(names) + 1) for at in range(len(groups))])
    axes.set_xticklabels(list(groups))
    axes.set_ylabel(ylabel)
    if log:
        axes.set_yscale("log")
    axes.legend(fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=120)
    pyplot.close(figure)
