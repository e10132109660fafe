# SPDX-License-Identifier: Apache-2.0
"""Does this machine train, and as it should? python tools/check.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls_ise.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main("check")
