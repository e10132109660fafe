# SPDX-License-Identifier: Apache-2.0
"""Backbones that PaddleClas does not have."""

from ppcls_ise.backbones.plain_conv_net import PlainConvNet
from ppcls_ise.backbones.reid_vit import ReIDViT, ViT_base_patch16_reid, ViT_small_patch16_reid
from ppcls_ise.backbones.resnet50_ibn_a import ResNet50_IBN_a

__all__ = [
    "PlainConvNet",
    "ReIDViT",
    "ResNet50_IBN_a",
    "ViT_base_patch16_reid",
    "ViT_small_patch16_reid",
]
