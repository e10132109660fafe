# SPDX-License-Identifier: Apache-2.0
"""Compare the figures in the logs of a chain with stored ones.

    python test_tipc/compare_results.py --gt_file test_tipc/results/ISE_market.json \
        --log_dir test_tipc/output/ISE_market/lite_train_lite_infer

The stored file maps the name of a log to its figures, {"..._eval.log": {"mAP": 0.25}}. What counts
is the last number that follows the name in the log. A figure agrees if |found - stored| <= atol +
rtol |stored|. The exit status is 1 when a figure does not, or is not there.
"""

import argparse
import json
import math
import re
import sys
from pathlib import Path


def last_figure(text: str, name: str) -> float:
    """The last number after ``name`` in a log; NaN where there is none."""
    number = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
    found = re.findall(rf"(?<![\w-]){re.escape(name)}\s*[:=]?\s+({number})\b", text)
    return float(found[-1]) if found else math.nan


def agrees(found: float, stored: float, *, atol: float, rtol: float) -> bool:
    return abs(found - stored) <= atol + rtol * abs(stored)  # NaN agrees with nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--gt_file", required=True, type=Path, help="stored figures, JSON")
    parser.add_argument("--log_dir", required=True, type=Path, help="folder of the logs")
    parser.add_argument("--atol", type=float, default=0.02)
    parser.add_argument("--rtol", type=float, default=0.02)
    args = parser.parse_args()
    wrong = 0
    for log, figures in json.loads(args.gt_file.read_text(encoding="utf-8")).items():
        path = args.log_dir / log
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        for name, stored in figures.items():
            found = last_figure(text, name)
            good = agrees(found, stored, atol=args.atol, rtol=args.rtol)
            wrong += not good
            print(f"{'ok   ' if good else 'WRONG'} {log} {name}: {found:g}, stored {stored:g}")
    if wrong:
        sys.exit(f"{wrong} figures differ by more than {args.atol:g} + {args.rtol:g} |stored|")


if __name__ == "__main__":
    main()
