# SPDX-License-Identifier: Apache-2.0
"""The graph of a record is the one that its labels were made of."""

import numpy as np
import pytest

from ppcls_ise.clustering import generate_pseudo_labels
from ppcls_ise.clustering.dbscan import dbscan
from ppcls_ise.clustering.record import ClusteringRecord
from ppcls_ise.clustering.sample_graph import (
    GraphSettings,
    eps_range_of,
    graph_of,
    tracklets_of,
)
from ppcls_ise.clustering.tracklets import mixed_tracklets, one_label_per_tracklet
from tests.clustering.test_eps_range import people

LISTS = {"k1_intra": 4, "k1_inter": 15, "k2_intra": 2, "k2_inter": 3}


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("aware", [True, False])
def test_with_tracklets_and_without(aware, whiten):
    features, _ = people(20, 12, 1.2)
    ids = np.arange(240) // 4 * 3
    ids[5::40] = -1
    lengths = LISTS if aware else {"k1": 15, "k2": 6}
    known = {"tracklet_ids": ids} if aware else {}
    made = generate_pseudo_labels(features, 0.5, whiten=whiten, **lengths, **known)
    record = ClusteringRecord.describe(
        [f"{i}.jpg" for i in range(240)], features, made.labels, tracklets=ids
    )
    settings = GraphSettings(0.5, 4, lengths, tracklet_aware=aware, whiten=whiten)
    positions = np.arange(240)
    graph = graph_of(record, positions, settings, 0.6)
    (point,) = eps_range_of(record, positions, graph, settings, [0.5]).points
    assert point.largest == made.largest
    labels = dbscan(graph, 0.5, 4)
    tracklets = tracklets_of(record, positions, settings)
    assert (tracklets is not None) == aware
    if tracklets is not None:
        free = mixed_tracklets(features, tracklets)
        linked = one_label_per_tracklet(labels, tracklets, free)
        labels = one_label_per_tracklet(labels, tracklets, free, alone=4)
        assert point.num_clusters == linked.max() + 1
    else:
        assert point.num_clusters == made.num_clusters
    assert made.num_clusters > 3
    np.testing.assert_array_equal(labels, made.labels)
