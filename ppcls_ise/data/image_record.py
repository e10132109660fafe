# SPDX-License-Identifier: Apache-2.0
"""What is known of an image before it is read."""

from typing import NamedTuple


class ImageRecord(NamedTuple):
    """One image of a data set: full path; identity, 0-based camera and tracklet where known.

    A tracklet is named within its camera: the same name in two cameras means two tracklets.
    """

    path: str
    pid: int | None
    camid: int | None
    tracklet: str | None = None
