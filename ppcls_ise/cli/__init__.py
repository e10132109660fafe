# SPDX-License-Identifier: Apache-2.0
"""The commands. ``tools/*.py`` are aliases of them."""
