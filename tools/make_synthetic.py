# SPDX-License-Identifier: Apache-2.0
"""Generate a data set of drawn pedestrians: python tools/make_synthetic.py --out FOLDER"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls_ise.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main("synthetic")
