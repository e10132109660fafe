# SPDX-License-Identifier: Apache-2.0
"""Features of images: python tools/infer.py --model FOLDER --images FOLDER --out features.npz"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls_ise.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main("infer")
