# SPDX-License-Identifier: Apache-2.0
"""Drawn pedestrians: data sets for demonstrations and tests."""

from ppcls_ise.synthetic.dataset import Parameters, make_synthetic

__all__ = ["Parameters", "make_synthetic"]
