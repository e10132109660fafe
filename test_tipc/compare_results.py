# SPDX-License-Identifier: Apache-2.0
"""Compare the results of a chain with stored ones.

    python test_tipc/compare_results.py --gt_file test_tipc/results/ISE_market.json \
        --log_file test_tipc/output/ISE_market/lite_train_lite_infer

Figures in logs: the stored file maps the name of a log to its figures, {"..._eval.log": {"mAP":
0.25}}; what counts is the last number that follows the name. Features: two .npz files of
tools/infer.py. Values agree if |found - stored| <= atol + rtol |stored|. The exit status is 1 when
one does not, or is not there.
"""

import argparse
import json
import math
import re
import sys
from pathlib import Path

import numpy as np


def last_figure(text: str, name: str) -> float:
    """The last number after ``name`` in a log; NaN where there is none."""
    number = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
    found = re.findall(rf"(?<![\w-]){re.escape(name)}\s*[:=]?\s+({number})\b", text)
    return float(found[-1]) if found else math.nan


def differences_of_figures(stored: Path, folder: Path, *, atol: float, rtol: float) -> list[str]:
    """Print every figure; the ones that do not agree (NaN agrees with nothing)."""
    wrong = []
    for log, figures in json.loads(stored.read_text(encoding="utf-8")).items():
        path = folder / log
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for name, value in figures.items():
            found = last_figure(text, name)
            line = f"{log} {name}: {found:g}, stored {value:g}"
            good = abs(found - value) <= atol + rtol * abs(value)
            print(f"{'ok   ' if good else 'WRONG'} {line}")
            wrong += [] if good else [line]
    return wrong


def differences_of_features(stored: Path, found: Path, *, atol: float, rtol: float) -> list[str]:
    """Whether two files hold the same features of the same images."""
    with np.load(stored, allow_pickle=False) as a, np.load(found, allow_pickle=False) as b:
        if a["paths"].tolist() != b["paths"].tolist() or a["features"].shape != b["features"].shape:
            return [f"{found} is of other images than {stored}"]
        difference = np.abs(a["features"] - b["features"])
        print(f"{found}: {len(difference)} features, max |difference| {difference.max():.2e}")
        good = (difference <= atol + rtol * np.abs(a["features"])).all(axis=1)
        return [str(path) for path in b["paths"][~good]]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--gt_file", required=True, type=Path, help="stored: .json or .npz")
    parser.add_argument("--log_file", required=True, type=Path, help="folder of logs, or .npz")
    parser.add_argument("--atol", type=float, default=0.02)
    parser.add_argument("--rtol", type=float, default=0.1)
    args = parser.parse_args()
    features = args.gt_file.suffix == ".npz"
    for option, path in (("--gt_file", args.gt_file), ("--log_file", args.log_file)):
        wanted_folder = option == "--log_file" and not features
        if not (path.is_dir() if wanted_folder else path.is_file()):
            sys.exit(f"{option}: there is no {'folder' if wanted_folder else 'file'} {path}")
    compare = differences_of_features if features else differences_of_figures
    if wrong := compare(args.gt_file, args.log_file, atol=args.atol, rtol=args.rtol):
        sys.exit(f"{len(wrong)} differ by more than {args.atol:g} + {args.rtol:g} |stored|")


if __name__ == "__main__":
    main()
