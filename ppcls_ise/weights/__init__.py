# SPDX-License-Identifier: Apache-2.0
"""Weight files: read without executing anything, checked, converted."""

from ppcls_ise.weights.loading import LoadReport, load_into, read_state, weight_path, write_state

__all__ = ["LoadReport", "load_into", "read_state", "weight_path", "write_state"]
