# SPDX-License-Identifier: Apache-2.0
"""Necks: what stands between backbone and head."""

from ppcls_ise.necks.reid_neck import ReIDNeck

__all__ = ["ReIDNeck"]
