# SPDX-License-Identifier: Apache-2.0
"""Memory grows with the number of images, not with its square."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = """
import json
import sys
from benchmarks.common import PeakMemory
from benchmarks.made_up_features import clustered_features
from ppcls_ise.clustering import generate_pseudo_labels

features = clustered_features(int(sys.argv[1]), 32)
cameras = {"camera_ids": [row % 3 for row in range(len(features))]} if sys.argv[2] else {}
generate_pseudo_labels(features[:500], 0.6)
with PeakMemory() as memory:
    generate_pseudo_labels(features, 0.6, **cameras)
print(json.dumps(memory.added))
"""


@pytest.mark.parametrize("cameras", ["", "3"], ids=["plain", "camera-aware"])
def test_four_times_the_images_take_less_than_five_times_the_memory(cameras):
    added = []
    for count in (3000, 12000):
        command = [sys.executable, "-c", _SCRIPT, str(count), cameras]
        done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True)
        added.append(json.loads(done.stdout))
    assert added[0] > 1, "nothing was measured"
    assert added[1] < 5 * added[0]
    assert added[1] < 100  # a dense matrix alone takes 576 MB
