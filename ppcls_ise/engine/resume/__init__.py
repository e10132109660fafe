# SPDX-License-Identifier: Apache-2.0
"""Stopping, saving and resuming a run, to the same bytes."""
