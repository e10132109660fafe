# SPDX-License-Identifier: Apache-2.0
"""Galleries: searched, stored, calibrated. Plain arrays, no Paddle."""

from ppcls_ise.retrieval.calibration import Calibration, calibrate
from ppcls_ise.retrieval.gallery_search import GallerySearch, Match

__all__ = ["Calibration", "GallerySearch", "Match", "calibrate"]
