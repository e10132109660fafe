# SPDX-License-Identifier: Apache-2.0
"""Data sets, transforms and the sampler."""

from ppcls_ise.data.cuhk03np import UnsupervisedCUHK03NP, UnsupervisedCUHK03NPLabeled
from ppcls_ise.data.dukemtmc import UnsupervisedDukeMTMC
from ppcls_ise.data.folder import UnlabeledFolder, number_alike
from ppcls_ise.data.image_record import ImageRecord
from ppcls_ise.data.images import ImageReadError, read_image
from ppcls_ise.data.market1501 import MarketStyleDataset, UnsupervisedMarket1501
from ppcls_ise.data.mars import MARS
from ppcls_ise.data.msmt17 import UnsupervisedMSMT17
from ppcls_ise.data.occluded_duke import UnsupervisedOccludedDuke
from ppcls_ise.data.personx import UnsupervisedPersonX
from ppcls_ise.data.reid_dataset import ReIDDataset
from ppcls_ise.data.samplers import IdentitySampler
from ppcls_ise.data.transforms import RandomPadCrop
from ppcls_ise.data.veri776 import UnsupervisedVeRi776

__all__ = [
    "MARS",
    "ImageRecord",
    "IdentitySampler",
    "ImageReadError",
    "MarketStyleDataset",
    "RandomPadCrop",
    "ReIDDataset",
    "UnlabeledFolder",
    "UnsupervisedCUHK03NP",
    "UnsupervisedCUHK03NPLabeled",
    "UnsupervisedDukeMTMC",
    "UnsupervisedMSMT17",
    "UnsupervisedMarket1501",
    "UnsupervisedOccludedDuke",
    "UnsupervisedPersonX",
    "UnsupervisedVeRi776",
    "number_alike",
    "read_image",
]
