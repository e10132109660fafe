# SPDX-License-Identifier: Apache-2.0
"""Drawn pedestrians, as single images or as tracklets, for demonstrations and tests."""

from ppcls_ise.synthetic.dataset import Parameters, make_synthetic
from ppcls_ise.synthetic.tracklets import TrackletParameters, make_tracklets

__all__ = ["Parameters", "TrackletParameters", "make_synthetic", "make_tracklets"]
