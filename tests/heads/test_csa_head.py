# SPDX-License-Identifier: Apache-2.0
import re

import numpy as np
import paddle
import pytest

from ppcls_ise.errors import ConfigError
from ppcls_ise.heads import ClusterContrastHead, HybridHead
from ppcls_ise.heads.csa_head import CSAHead, halves, hardest_positives
from ppcls_ise.layers.rows import members_by_label
from ppcls_ise.losses import HybridContrastLoss, cluster_contrast_loss
from ppcls_ise.losses.csa_loss import AggregationLoss, aggregation_loss
from tests.conftest import REPOSITORY, lite_overrides

DIM = 16


def normalized(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def make_head(prototypes=None, *, trained=True, **options):
    paddle.seed(0)
    head = CSAHead(DIM, num_heads=2, attention_dim=8, **options)
    if trained:
        values = np.random.default_rng(0).standard_normal(head.aggregation.query.shape)
        head.aggregation.query.set_value(values.astype(np.float32))
    if prototypes is not None:
        head.memory.reset(prototypes)
    head.train()
    return head


def step_of(head, rows, labels, *, frozen=False):
    """One forward and backward pass: the output and the features' gradient."""
    features = paddle.to_tensor(rows, stop_gradient=frozen)
    output = head(features, paddle.to_tensor(labels).unsqueeze(1))
    loss = cluster_contrast_loss(output["logits"], output["row_labels"])
    (loss + AggregationLoss()({"logits": output}, None)["AggregationLoss"]).backward()
    return output, features.grad


def slow_hardest(head, rows, labels):
    """Per label the row with the largest 1 - <x, N(g)>, the first on ties."""
    hardest = {}
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        samples = paddle.to_tensor(rows[mine][None])
        pooled, _ = head.aggregation(samples, paddle.ones([1, len(mine)]))
        aggregate = normalized(pooled.numpy()[0].astype(np.float64))
        dispersion = [1.0 - rows[i] @ aggregate for i in mine]
        hardest[int(label)] = int(mine[np.argmax(dispersion)])
    return hardest


@pytest.fixture
def batch(unit_rows):
    """Prototypes [6, D], rows [15, D] and interleaved labels 0 .. 3, one of them seen once."""
    generator = np.random.default_rng(4)
    labels = generator.permutation([0] * 4 + [1] * 6 + [2] * 4 + [3])
    return unit_rows(generator, 6, DIM), unit_rows(generator, 15, DIM), labels


def test_the_hardest_positive_moves_its_prototype(batch):
    prototypes, rows, labels = batch
    head = make_head(prototypes, momentum=0.3)
    step_of(head, rows, labels)
    wanted = prototypes.copy()
    for label, row in slow_hardest(head, rows, labels).items():
        wanted[label] = normalized(0.3 * prototypes[label] + 0.7 * rows[row])
    np.testing.assert_allclose(head.memory.prototypes.numpy(), wanted, atol=1e-6)
    np.testing.assert_array_equal(head.memory.prototypes.numpy()[4:], prototypes[4:])


def test_hps_is_another_choice_than_the_least_similar_to_the_prototype(batch):
    prototypes, rows, labels = batch
    memories = []
    for rule in ("hps", "hard"):
        head = make_head(prototypes, memory=rule)
        step_of(head, rows, labels)
        memories.append(head.memory.prototypes.numpy())
    assert np.abs(memories[0] - memories[1]).max() > 0.1


def test_hardest_positive_ties_and_padding():
    samples = np.array([[[1, 0], [0, 1], [0, 1]], [[1, 0], [0, -1], [0, -1]]], np.float32)
    mask = paddle.to_tensor(np.array([[1, 1, 1], [1, 0, 0]], np.float32))
    aggregated = paddle.to_tensor(np.array([[1, 0], [1, 0]], np.float32))
    assert hardest_positives(paddle.to_tensor(samples), mask, aggregated).tolist() == [1, 0]


def test_memory_changes_in_the_backward_pass_only(batch):
    prototypes, rows, labels = batch
    head = make_head(prototypes)
    head(paddle.to_tensor(rows, stop_gradient=False), paddle.to_tensor(labels).unsqueeze(1))
    np.testing.assert_array_equal(head.memory.prototypes.numpy(), prototypes)


@pytest.mark.parametrize("rule", ["hard", "mean"])
def test_without_csa_and_hps_it_is_cluster_contrast(batch, rule):
    """Same logits, same gradient (the aggregation never reaches the encoder), same memory."""
    prototypes, rows, labels = batch
    ours = make_head(memory=rule, initialization="mean")
    ours.reset_memory(rows, labels, prototypes, (0, 1))
    output, gradient = step_of(ours, rows, labels)
    plain = ClusterContrastHead(0.1, 0.05, rule)
    plain.memory.reset(prototypes)
    features = paddle.to_tensor(rows, stop_gradient=False)
    wanted = plain(features, paddle.to_tensor(labels).unsqueeze(1))
    cluster_contrast_loss(wanted["logits"], wanted["row_labels"]).backward()
    np.testing.assert_array_equal(output["logits"].numpy(), wanted["logits"].numpy())
    np.testing.assert_array_equal(gradient.numpy(), features.grad.numpy())
    np.testing.assert_array_equal(ours.memory.prototypes.numpy(), plain.memory.prototypes.numpy())


def test_hps_gradient_is_that_of_cluster_contrast(batch):
    prototypes, rows, labels = batch
    gradients = [step_of(make_head(prototypes, memory=rule), rows, labels)[1] for rule in RULES]
    for gradient in gradients[1:]:
        np.testing.assert_allclose(gradient.numpy(), gradients[0].numpy(), atol=1e-6)


RULES = ("hps", "hard", "mean")


def test_aggregation_loss():
    generator = np.random.default_rng(2)
    first, second = (normalized(generator.standard_normal((5, DIM))) for _ in range(2))
    total = 0.0
    for c in range(5):
        for ours, theirs in ((first, second), (second, first)):
            scores = np.exp(theirs.astype(np.float64) @ ours[c] / 0.5)
            total -= np.log(scores[c] / scores.sum()) / 10
    got = aggregation_loss(paddle.to_tensor(first), paddle.to_tensor(second), temperature=0.5)
    assert float(got) == pytest.approx(total, rel=1e-5)
    assert float(aggregation_loss(paddle.ones([1, 3]), paddle.ones([1, 3]))) == 0.0
    with pytest.raises(ValueError, match="temperature"):
        AggregationLoss(0.0)


def test_halves_are_disjoint_and_single_rows_serve_twice(batch):
    prototypes, rows, labels = batch
    head = make_head(prototypes, trained=False)  # the fresh aggregate is the plain mean
    output, _ = step_of(head, rows, labels)
    for name, start in (("first_halves", 0), ("second_halves", 1)):
        for c, got in enumerate(output[name].numpy()):
            mine = np.flatnonzero(labels == c)
            mine = mine[start::2] if len(mine) > 1 else mine
            np.testing.assert_allclose(got, normalized(rows[mine].mean(axis=0)), atol=1e-6)


@pytest.mark.parametrize("kind", ["mixed", "one label", "single rows"])
def test_every_parameter_takes_part_in_every_step(batch, kind):
    """Data-parallel training waits for each gradient, so even a useless one has to exist."""
    prototypes, rows, labels = batch
    if kind == "one label":
        labels = np.zeros_like(labels)
    elif kind == "single rows":
        rows, labels = rows[:4], np.arange(4)
    head = make_head(prototypes)
    step_of(head, rows, labels)
    assert len(head.parameters()) == 2
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert np.isfinite(parameter.grad.numpy()).all()
        assert (np.abs(parameter.grad.numpy()).max() > 1e-4) == (kind == "mixed")


def test_one_cluster(batch):
    prototypes, rows, _ = batch
    head = make_head()
    labels = np.zeros(len(rows), np.int64)
    head.reset_memory(rows, labels, prototypes[:1], (0, 1))
    output, gradient = step_of(head, rows, labels)
    assert output["logits"].shape == [15, 1]
    assert np.isfinite(gradient.numpy()).all()


def contaminated(generator, count=12, size=16, share=0.25):
    """Clusters around known centers, a quarter of whose rows belongs to other centers."""
    centers = normalized(generator.standard_normal((count, DIM)))
    labels = np.repeat(np.arange(count), size)
    wrong = generator.random(len(labels)) < share
    source = (labels + wrong * generator.integers(1, count, len(labels))) % count
    noise = 0.2 * generator.standard_normal((len(labels), DIM))
    rows = normalized(centers[source] + noise)
    means = normalized(np.stack([rows[labels == c].mean(axis=0) for c in range(count)]))
    return centers, rows, labels, wrong, means


@pytest.mark.parametrize("seed", [0, 1])
def test_trained_attention_finds_a_cluster_better_than_the_mean(seed):
    """What the loss is for: foreign rows lose weight, prototypes come closer to the truth."""
    generator = np.random.default_rng(seed)
    centers, rows, labels, wrong, means = contaminated(generator)
    head = make_head(trained=False)
    head.reset_memory(rows, labels, means, (0, 1))
    np.testing.assert_allclose(head.memory.prototypes.numpy(), means, atol=1e-5)
    optimizer = paddle.optimizer.Adam(2e-3, parameters=head.parameters())
    for _ in range(400):
        chosen = generator.choice(len(means), 8, replace=False)
        index = np.concatenate([generator.choice(c * 16 + np.arange(16), 8, False) for c in chosen])
        step_of(head, rows[index], labels[index], frozen=True)
        optimizer.step()
        optimizer.clear_grad()
    head.reset_memory(rows, labels, means, (0, 2))
    prototypes = head.memory.prototypes.numpy()
    before, after = (1.0 - (rows * centers).sum(axis=1).mean() for rows in (means, prototypes))
    assert after < 0.95 * before
    _, weights = head.aggregation(
        paddle.to_tensor(rows.reshape([-1, 16, DIM])), paddle.ones([len(means), 16])
    )
    weights = weights.numpy().reshape(-1)
    assert weights[wrong].mean() < 0.8 * weights[~wrong].mean()


def test_evaluation_needs_no_aggregation():
    head = make_head()
    head.eval()
    rows = np.zeros((2, DIM), np.float32)
    rows[0, :2] = 3.0, 4.0
    np.testing.assert_allclose(head(paddle.to_tensor(rows)).numpy(), rows / 5.0, atol=1e-7)


def test_parameters_are_in_the_weights():
    assert set(make_head().state_dict()) == {"aggregation.query", "aggregation.key"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": "median"}, r"Arch\.Head\.memory"),
        ({"initialization": "zero"}, r"Arch\.Head\.initialization"),
        ({"max_samples": 0}, r"Arch\.Head\.max_samples"),
        ({"momentum": 1.1}, r"Arch\.Head\.momentum"),
    ],
)
def test_bad_parameters(options, words):
    with pytest.raises(ValueError, match=words):
        CSAHead(DIM, **options)


@pytest.mark.slow
def test_a_run_trains_the_attention_and_evaluates_without_it(lite_set, tmp_path):
    import ppcls_ise

    ppcls_ise.register()
    from ppcls_ise.config.overrides import get_config
    from ppcls_ise.engine.engine import UnsupervisedEngine
    from ppcls_ise.weights.loading import read_state

    path = str(REPOSITORY / "configs" / "CSA_synthetic.yaml")
    with paddle.utils.unique_name.guard():
        engine = UnsupervisedEngine(get_config(path, lite_overrides(lite_set, tmp_path)))
        engine.train()
    latest = tmp_path / "RecModel" / "latest"
    state = read_state(f"{latest}.pdparams")
    assert np.abs(state["head.aggregation.query"]).max() > 0
    assert "nan" not in (tmp_path / "RecModel" / "train.log").read_text().lower()

    # The head of another method evaluates the same weights to the same numbers.
    results = []
    for head in ("", "Arch.Head={'name': 'ClusterContrastHead'}"):
        overrides = [*lite_overrides(lite_set, tmp_path), f"Global.pretrained_model={latest}"]
        config = get_config(path, [*overrides, *filter(None, [head])])
        results.append(UnsupervisedEngine(config, mode="eval").eval())
    assert results[0] == results[1] > 0


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: CSAHead(4, memory="other"), "Arch.Head.memory"),
        (lambda: CSAHead(4, initialization="other"), "Arch.Head.initialization"),
        (lambda: CSAHead(4, max_samples=0), "Arch.Head.max_samples"),
        (lambda: CSAHead(4, num_heads=0), "Arch.Head.num_heads"),
        (lambda: CSAHead(4, attention_dim=7), "Arch.Head.attention_dim"),
        (lambda: CSAHead(0), "Arch.Head.num_features"),
        (lambda: CSAHead(4, momentum=2.0), "Arch.Head.momentum"),
        (lambda: HybridHead(version=3), "Arch.Head.version"),
        (lambda: HybridHead(version=2, num_instances=0), "Arch.Head.num_instances"),
        (lambda: HybridHead(temperature=0.0), "Arch.Head.temperature"),
        (lambda: AggregationLoss(temperature=0.0), "AggregationLoss.temperature"),
        (lambda: HybridContrastLoss(balance=2.0), "HybridContrastLoss"),
    ],
)
def test_bad_values_are_errors_of_the_configuration(build, key):
    with pytest.raises(ConfigError, match=re.escape(key)):
        build()


def test_halves_of_every_label():
    labels = np.array([7, 3, 7, 3, 3, 9])
    _, members, counts = members_by_label(labels)
    mask = (np.arange(members.shape[1]) < counts[:, None]).astype(np.int64)
    index, kept = halves(members, mask)
    groups = [row[keep > 0].tolist() for row, keep in zip(index, kept, strict=True)]
    assert groups == [[1, 4], [0], [5], [3], [2], [5]]
    assert members.shape == mask.shape == (3, 3) and mask.sum() == 6
