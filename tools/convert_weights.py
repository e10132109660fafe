# SPDX-License-Identifier: Apache-2.0
"""PyTorch checkpoints to .pdparams and back: python tools/convert_weights.py SOURCE TARGET"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls_ise.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main("convert")
