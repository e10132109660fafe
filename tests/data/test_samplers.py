# SPDX-License-Identifier: Apache-2.0
"""The sampler against its rules, written out slowly."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from ppcls_ise.data import IdentitySampler
from ppcls_ise.data.samplers import IdentityTable
from ppcls_ise.errors import ConfigError


def fake_dataset(labels, camids=None, tracklet_ids=None):
    return SimpleNamespace(
        pseudo_labels=np.asarray(labels, dtype=np.int64),
        camids=None if camids is None else np.asarray(camids, dtype=np.int64),
        tracklet_ids=None if tracklet_ids is None else np.asarray(tracklet_ids, dtype=np.int64),
        seed=None,
        epoch=None,
    )


def random_dataset(num_clusters=24, seed=0, per_cluster=(2, 12)):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(*per_cluster, size=num_clusters)
    labels = rng.permutation(np.concatenate([np.repeat(np.arange(num_clusters), sizes), [-1] * 9]))
    return fake_dataset(labels, rng.integers(0, 3, len(labels)))


def allowed_pool(labels, camids, anchor, tracklets=None):
    """The images that may follow the anchor, by looking at every image."""
    same = [j for j in range(len(labels)) if labels[j] == labels[anchor]]
    if camids is not None:
        other_camera = [j for j in same if camids[j] != camids[anchor]]
        if other_camera:
            return other_camera
    if tracklets is not None:
        # An image in no tracklet (-1) is one of its own.
        own = tracklets[anchor]
        other = [j for j in same if j != anchor and (own < 0 or tracklets[j] != own)]
        if other:
            return other
    return [j for j in same if j != anchor]


def indices(batch):
    return [index for index, _ in batch]


def blocks_of(batch, n):
    rows = indices(batch)
    assert len(rows) % n == 0
    return [rows[i : i + n] for i in range(0, len(rows), n)]


@pytest.mark.parametrize("camera_aware", [True, False])
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_every_block_follows_the_rules(n, camera_aware):
    dataset = random_dataset()
    labels = dataset.pseudo_labels
    camids = dataset.camids if camera_aware else None
    sampler = IdentitySampler(dataset, 6 * n, n, iters=40, camera_aware=camera_aware)
    for batch in sampler:
        blocks = blocks_of(batch, n)
        assert len(blocks) == 6
        assert len({labels[block[0]] for block in blocks}) == 6
        for anchor, *others in blocks:
            assert labels[anchor] >= 0
            pool = allowed_pool(labels, camids, anchor)
            assert set(others) <= set(pool)
            if len(pool) >= n:
                assert len(set(others)) == n - 1


# images per camera, camera of the anchor, pool, distinct draws, probability of a repeat
WORKED = [
    ([12, 8], 0, range(12, 20), True, 0),
    ([6, 4], 0, range(6, 10), True, 0),
    ([6, 4], 1, range(0, 6), True, 0),
    ([5, 3], 0, range(5, 8), False, 7 / 9),
    ([5, 3], 1, range(0, 5), True, 0),
    ([5], 0, None, True, 0),
    ([4], 0, None, False, 7 / 9),
    ([1, 1, 1], 0, range(1, 3), False, 1),
]


@pytest.mark.parametrize(("per_camera", "camera", "pool", "distinct", "repeats"), WORKED)
def test_worked_values_of_the_specification(per_camera, camera, pool, distinct, repeats):
    n, trials = 4, 8000
    camids = np.repeat(np.arange(len(per_camera)), per_camera)
    table = IdentityTable.build(np.zeros(len(camids), dtype=np.int64), camids)
    blocks = table.draw_blocks(np.zeros(trials, dtype=int), n, np.random.default_rng(0))
    anchors = np.bincount(blocks[:, 0], minlength=len(camids)) / trials
    np.testing.assert_allclose(anchors, 1 / len(camids), atol=0.02)  # every image alike

    blocks = blocks[camids[blocks[:, 0]] == camera]
    others = blocks[:, 1:]
    has_repeat = np.array([len(set(row)) < n - 1 for row in others.tolist()])
    assert abs(has_repeat.mean() - repeats) < 0.03
    assert distinct == (not has_repeat.any())
    for anchor in np.unique(blocks[:, 0]):
        rows = others[blocks[:, 0] == anchor]
        expected = set(pool) if pool is not None else set(range(len(camids))) - {anchor}
        assert set(rows.ravel()) == expected
        for column in rows.T:  # uniform in every place of the block, not only over all of it
            share = np.bincount(column, minlength=len(camids))[sorted(expected)] / len(rows)
            np.testing.assert_allclose(share, 1 / len(expected), atol=5 / np.sqrt(len(rows)))


def test_draws_without_replacement_reach_all_pairs_equally():
    table = IdentityTable.build(np.zeros(6, dtype=np.int64), None)
    blocks = table.draw_blocks(np.zeros(30000, dtype=int), 3, np.random.default_rng(1))
    triples, counts = np.unique(blocks, axis=0, return_counts=True)
    assert len(triples) == 6 * 5 * 4
    assert counts.min() > 170 and counts.max() < 330  # expected 250, sigma 16


@pytest.mark.parametrize("camera_aware", [True, False])
@pytest.mark.parametrize("tracklet_aware", [True, False])
def test_other_tracklets_follow_the_anchor_where_no_other_camera_does(camera_aware, tracklet_aware):
    rng = np.random.default_rng(5)
    dataset = random_dataset(per_cluster=(2, 9))
    labels = dataset.pseudo_labels
    tracklets = rng.integers(-1, 12, len(labels))
    dataset.tracklet_ids = tracklets
    dataset.camids = np.where(tracklets < 0, 0, tracklets % 2)
    sampler = IdentitySampler(
        dataset, 24, 4, 60, camera_aware=camera_aware, tracklet_aware=tracklet_aware
    )
    anchors = {}
    for batch in sampler:
        for block in blocks_of(batch, 4):
            anchors.setdefault(block[0], set()).update(block[1:])
    assert len(anchors) > 0.9 * np.count_nonzero(labels >= 0)
    for anchor, others in anchors.items():
        pool = allowed_pool(
            labels,
            dataset.camids if camera_aware else None,
            anchor,
            tracklets if tracklet_aware else None,
        )
        assert others <= set(pool or [anchor])


def test_one_tracklet_of_each_image_changes_nothing_and_one_for_all_neither():
    dataset = random_dataset()
    before = list(IdentitySampler(dataset, 16, 4, iters=20))
    for tracklets in (np.full(len(dataset.pseudo_labels), -1), np.zeros_like(dataset.camids)):
        dataset.tracklet_ids = tracklets
        dataset.camids = None
        alone = list(IdentitySampler(dataset, 16, 4, iters=20))
        dataset.tracklet_ids = None
        assert alone == list(IdentitySampler(dataset, 16, 4, iters=20)) != before


def test_camera_free_rule_is_used_without_cameras():
    labels = np.repeat([0, 1, 2], 5)
    without = IdentitySampler(fake_dataset(labels), 8, 4, iters=20)
    switched_off = IdentitySampler(
        fake_dataset(labels, np.arange(15) % 2), 8, 4, iters=20, camera_aware=False
    )
    assert list(without) == list(switched_off)


def test_one_pass_visits_every_cluster_once_and_drops_the_rest():
    dataset = random_dataset(num_clusters=11)
    sampler = IdentitySampler(dataset, 12, 4, iters=6)  # 3 clusters a batch, 3 batches a pass
    batches = list(sampler)
    orders = []
    for first in (0, 3):
        rows = [i for batch in batches[first : first + 3] for i in indices(batch)[::4]]
        seen = dataset.pseudo_labels[rows].tolist()
        assert len(set(seen)) == 9
        orders.append(seen)
    assert orders[0] != orders[1]


def test_order_of_clusters_is_uniform():
    dataset = fake_dataset(np.repeat(np.arange(4), 3))
    sampler = IdentitySampler(dataset, 8, 2, iters=6000)
    orders = [tuple(dataset.pseudo_labels[indices(batch)[::2]]) for batch in sampler]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 180 and counts.max() < 320  # expected 250, sigma 15.5


@pytest.mark.parametrize("iters", [1, 5, 400])
def test_length_is_constant_and_kept(iters):
    sampler = IdentitySampler(random_dataset(), 16, 4, iters=iters)
    assert len(sampler) == iters
    assert len(list(sampler)) == iters
    sampler.dataset.pseudo_labels = np.repeat(-1, len(sampler.dataset.pseudo_labels))
    assert len(sampler) == iters


def test_same_keys_same_list_other_keys_other_list():
    def run(seed, epoch):
        sampler = IdentitySampler(random_dataset(), 16, 4, iters=8, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    reference = run(1, 2)
    np.random.seed(99)  # global generators play no part
    assert run(1, 2) == reference
    assert run(2, 2) != reference
    assert run(1, 3) != reference


def test_iterating_again_repeats_until_the_epoch_changes():
    sampler = IdentitySampler(random_dataset(), 16, 4, iters=8)
    assert list(sampler) == list(sampler)


def test_epoch_and_seed_reach_the_data_set():
    dataset = random_dataset()
    sampler = IdentitySampler(dataset, 16, 4, seed=5)
    assert (dataset.seed, dataset.epoch) == (5, 0)
    sampler.set_epoch(7)
    assert (dataset.seed, dataset.epoch, sampler.epoch) == (5, 7, 7)


def test_new_labels_need_no_new_sampler():
    dataset = random_dataset()
    sampler = IdentitySampler(dataset, 16, 4, iters=10)
    list(sampler)
    dataset.pseudo_labels = np.where(dataset.pseudo_labels < 5, dataset.pseudo_labels, -1)
    fresh = IdentitySampler(dataset, 16, 4, iters=10)
    batches = list(sampler)
    assert batches == list(fresh)
    assert max(dataset.pseudo_labels[indices(batch)].max() for batch in batches) == 4


def test_names_of_clusters_do_not_matter():
    dataset, renamed = random_dataset(), random_dataset()
    names = np.random.default_rng(3).permutation(24) + 100
    renamed.pseudo_labels = np.where(dataset.pseudo_labels < 0, -1, names[dataset.pseudo_labels])
    assert list(IdentitySampler(dataset, 16, 4, 9)) == list(IdentitySampler(renamed, 16, 4, 9))


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("num_clusters", [24, 8, 5])
def test_ranks_share_the_batches_of_one_process(world_size, num_clusters):
    dataset = random_dataset(num_clusters)
    whole = list(IdentitySampler(dataset, 32, 4, iters=7, world_size=1, rank=0))
    parts = [
        list(IdentitySampler(dataset, 32 // world_size, 4, 7, world_size=world_size, rank=rank))
        for rank in range(world_size)
    ]
    for step, batch in enumerate(whole):
        assert [pair for part in parts for pair in part[step]] == batch
        assert all(len(part[step]) for part in parts)
        clusters = [set(dataset.pseudo_labels[indices(part[step])]) for part in parts]
        assert sum(map(len, clusters)) == len(set().union(*clusters)) == min(num_clusters, 8)


def test_draw_numbers_count_the_rows_of_an_epoch():
    batches = list(IdentitySampler(random_dataset(), 16, 4, iters=6))
    assert [draw for batch in batches for _, draw in batch] == list(range(6 * 16))


def test_fewer_clusters_than_wanted_give_smaller_batches_and_one_warning(caplog):
    dataset = random_dataset(num_clusters=3)
    sampler = IdentitySampler(dataset, 32, 4, iters=5)
    with caplog.at_level(logging.WARNING, logger="ppcls"):
        batches = list(sampler)
    assert len(batches) == 5
    assert all(sorted(dataset.pseudo_labels[indices(b)[::4]]) == [0, 1, 2] for b in batches)
    assert all(draw // 32 == step for step, batch in enumerate(batches) for _, draw in batch)
    assert len({tuple(indices(batch)) for batch in batches}) > 1
    warnings = [record.getMessage() for record in caplog.records if record.name == "ppcls"]
    assert len(warnings) == 1 and "3 clusters" in warnings[0] and "8" in warnings[0]


def test_uneven_split_gives_every_rank_whole_blocks():
    dataset = random_dataset(num_clusters=5)
    rows = [
        len(next(iter(IdentitySampler(dataset, 8, 4, 1, world_size=4, rank=rank))))
        for rank in range(4)
    ]
    assert rows == [8, 4, 4, 4]


def test_fewer_clusters_than_ranks_leave_no_rank_empty():
    dataset = fake_dataset(np.repeat([0, 1], 50))
    parts = [list(IdentitySampler(dataset, 8, 4, 3, world_size=3, rank=rank)) for rank in range(3)]
    for step in range(3):
        rows = [indices(part[step]) for part in parts]
        assert [len(r) for r in rows] == [4, 4, 4]
        assert {dataset.pseudo_labels[r[0]] for r in rows} == {0, 1}
        assert len({tuple(r) for r in rows}) == 3  # the repeated cluster is drawn anew
        assert len({draw for part in parts for _, draw in part[step]}) == 12


def test_a_single_cluster_works():
    batches = list(IdentitySampler(fake_dataset([-1, 0, 0, 0, -1]), 8, 4, iters=3))
    assert all(len(batch) == 4 and set(indices(batch)) <= {1, 2, 3} for batch in batches)


@pytest.mark.parametrize("labels", [[-1, -1, -1], []])
def test_without_clusters_it_says_who_makes_them(labels):
    """At once, not with the first batch: in the thread of a loader that would never be heard."""
    with pytest.raises(ConfigError, match=r"tools/train\.py"):
        iter(IdentitySampler(fake_dataset(labels), 8, 4, iters=3))


def test_one_image_cluster_fills_its_block_and_batches_stay_aligned():
    labels = [0, 1, 1, 1, 1, 2, 2, 2, 2]
    for camids in (None, np.arange(9) % 2):
        dataset = fake_dataset(labels, camids)
        for batch in IdentitySampler(dataset, 12, 4, iters=10):
            for block in blocks_of(batch, 4):
                assert len({labels[i] for i in block}) == 1
                if labels[block[0]] == 0:
                    assert block == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 30, "num_instances": 4}, ["batch_size", "num_instances", "30"]),
        ({"batch_size": 2, "num_instances": 4}, ["batch_size", "num_instances"]),
        ({"batch_size": 0, "num_instances": 4}, ["batch_size"]),
        ({"batch_size": 8, "num_instances": 0}, ["num_instances"]),
        ({"batch_size": 8, "num_instances": 4, "iters": 0}, ["iters", ">= 1"]),
        ({"batch_size": 8, "num_instances": 4, "seed": -1}, ["seed"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, words):
    with pytest.raises(ValueError) as caught:
        IdentitySampler(random_dataset(), **arguments)
    assert all(word in str(caught.value) for word in words)


def test_rank_is_taken_from_the_environment_by_default():
    sampler = IdentitySampler(random_dataset(), 8, 4)
    assert (sampler.world_size, sampler.rank) == (1, 0)
