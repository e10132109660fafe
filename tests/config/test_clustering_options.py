# SPDX-License-Identifier: Apache-2.0
"""The first epoch's lists of the camera-aware distance."""

import numpy as np
import pytest

import ppcls_ise
from ppcls_ise.config.clustering import ClusteringOptions
from ppcls_ise.errors import ConfigError
from tests.conftest import lite_overrides

LENGTHS = {"k1_intra": 5, "k1_inter": 20, "k2_intra": 2, "k2_inter": 4}


def test_only_the_first_epoch_and_only_with_cameras():
    options = ClusteringOptions(transform_ops=[], eps=0.5, camera_aware=True, k2_first_epoch=3)
    assert options.lengths_in(1) == LENGTHS | {"k2_intra": 3, "k2_inter": 3}
    assert options.lengths_in(2) == options.lengths == LENGTHS
    aware = ClusteringOptions(transform_ops=[], eps=0.5, k2_first_epoch=3).resolved(tracklets=True)
    assert aware.lengths_in(1) == options.lengths_in(1) and aware.lengths_in(2) == LENGTHS
    plain = ClusteringOptions(transform_ops=[], eps=0.5, k2_first_epoch=3)
    assert plain.lengths_in(1) == {"k1": 30, "k2": 6}
    unset = ClusteringOptions(transform_ops=[], eps=0.5, camera_aware=True)
    assert unset.lengths_in(1) == LENGTHS


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3"])
def test_other_values_are_errors(value):
    with pytest.raises(ConfigError, match=r"Clustering\.k2_first_epoch"):
        ClusteringOptions(transform_ops=[], eps=0.5, k2_first_epoch=value)


def test_a_run_uses_them(lite_set, tmp_path, monkeypatch):
    ppcls_ise.register()
    from ppcls_ise.engine import clustering_callback
    from tests.engine.test_engine import train

    seen = []
    original = clustering_callback.generate_pseudo_labels

    def watched(*arguments, **options):
        seen.append({key: options[key] for key in LENGTHS})
        return original(*arguments, **options)

    monkeypatch.setattr(clustering_callback, "generate_pseudo_labels", watched)
    more = {"Clustering__camera_aware": True, "Clustering__k2_first_epoch": 3}
    train(lite_overrides(lite_set, tmp_path, Global__eval_during_train=False, **more))
    assert seen == [LENGTHS | {"k2_intra": 3, "k2_inter": 3}, LENGTHS]


def of(**more):
    return ClusteringOptions(transform_ops=[], eps=0.6, **more)


@pytest.mark.parametrize(
    ("options", "tracklets", "aware", "eps", "whiten"),
    [
        ({}, True, True, 0.5, True),
        ({}, False, False, 0.6, False),
        ({"tracklet_aware": False}, True, False, 0.6, False),
        ({"tracklet_aware": True, "tracklet_eps": 0.3, "whiten": False}, True, True, 0.3, False),
        ({"whiten": True}, False, False, 0.6, True),
        ({"camera_aware": True}, True, True, 0.5, True),
    ],
)
def test_auto_is_decided_by_the_data(options, tracklets, aware, eps, whiten):
    resolved = of(**options).resolved(tracklets=tracklets)
    found = (resolved.tracklet_aware, resolved.eps, resolved.whiten)
    assert found == (aware, eps, whiten)
    assert resolved.eps_key == ("Clustering.tracklet_eps" if aware else "Clustering.eps")
    assert set(resolved.lengths) == (set(LENGTHS) if aware else {"k1", "k2"})
    cameras, ids = np.zeros(3, int), np.arange(3)
    given = resolved.graph_options(cameras, ids if tracklets else None)
    assert ("tracklet_ids" in given) == aware
    assert ("camera_ids" in given) == bool(options.get("camera_aware"))


@pytest.mark.parametrize("key", ["tracklet_aware", "whiten"])
@pytest.mark.parametrize("value", ["yes", 1, None, 0.5])
def test_other_words_than_auto(key, value):
    with pytest.raises(ConfigError, match=rf"Clustering\.{key} has to be True, False or auto"):
        of(**{key: value})


@pytest.mark.parametrize(
    ("options", "tracklets", "words"),
    [
        ({"tracklet_aware": True}, False, "needs tracklets.*tracklet_from_folder"),
        ({"approximate": True}, True, r"approximate=True finds no.*Clustering\.tracklet_aware"),
        ({"tracklet_aware": True, "approximate": True}, True, r"Clustering\.approximate"),
        ({"tracklet_eps": 1.0}, True, r"Clustering\.tracklet_eps has to be"),
        ({"must_link": 2}, True, r"Clustering\.must_link has to be"),
    ],
)
def test_what_cannot_be_together(options, tracklets, words):
    with pytest.raises(ConfigError, match=words):
        of(**options).resolved(tracklets=tracklets)
