# SPDX-License-Identifier: Apache-2.0
"""Backbones that PaddleClas does not have."""

from ppcls_ise.backbones.plain_conv_net import PlainConvNet

BACKBONES = [PlainConvNet]

__all__ = ["BACKBONES", "PlainConvNet"]
