# SPDX-License-Identifier: Apache-2.0
"""Weight files: read without executing anything (`loading`, `safe_pickle`), checked, converted."""

from ppcls_ise.weights.loading import (
    LoadReport,
    compare,
    load_into,
    read_checkpoint,
    read_progress,
    read_state,
    weight_path,
    write_state,
)

__all__ = [
    "LoadReport",
    "compare",
    "load_into",
    "read_checkpoint",
    "read_progress",
    "read_state",
    "weight_path",
    "write_state",
]
