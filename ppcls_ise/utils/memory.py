# SPDX-License-Identifier: Apache-2.0
"""How much memory this process has taken."""

import sys

if sys.platform != "win32":
    import resource


def peak_megabytes() -> float | None:
    """Largest resident memory of this process so far, in MB (1e6 bytes); None on Windows."""
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
