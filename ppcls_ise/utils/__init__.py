# SPDX-License-Identifier: Apache-2.0
"""Files, threads, progress bars, and the tables of components."""
