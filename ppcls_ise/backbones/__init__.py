# SPDX-License-Identifier: Apache-2.0
"""Backbones that PaddleClas does not have."""

from ppcls_ise.backbones.plain_conv_net import PlainConvNet

__all__ = ["PlainConvNet"]
