# SPDX-License-Identifier: Apache-2.0
"""The first epoch's lists of the camera-aware distance."""

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
