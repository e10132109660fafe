# SPDX-License-Identifier: Apache-2.0
"""Clusters of images are the pseudo-labels of a training, with tracklets and without."""

import numpy as np
import pytest

from ppcls_ise.clustering import generate_pseudo_labels
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.deploy.image_clusters import FIRST, cluster_images
from tests.clustering.test_eps_range import people


@pytest.mark.parametrize("must_link", [True, False])
@pytest.mark.parametrize("known", [(False, False), (True, False), (False, True), (True, True)])
def test_labels_are_those_of_a_training(known, must_link):
    features, _ = people(20, 12, 1.2)
    tracklets, cameras = np.arange(240) // 4, np.arange(240) // 4 % 3
    options = ClusteringOptions(
        transform_ops=[], eps=0.5, k1=15, camera_aware=known[0], must_link=must_link
    ).resolved(tracklets=known[1])
    groups = {"camera_ids": cameras if known[0] else None}
    groups["tracklet_ids"] = tracklets if known[1] else None
    made = cluster_images(features, options, eps=0.5, **groups)
    expected = generate_pseudo_labels(
        features, 0.5, must_link=must_link, whiten=known[1], **options.lengths, **groups
    )
    assert expected.num_clusters > 3
    np.testing.assert_array_equal(
        made.labels, np.where(expected.labels < 0, -1, expected.labels + FIRST)
    )
