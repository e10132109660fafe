# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls_ise.engine import memory_needs
from ppcls_ise.engine.memory_needs import card_bytes, require_shared_memory, saved_bytes
from ppcls_ise.errors import ConfigError


def loader(workers=4, batch_size=256, shared=True):
    image = np.zeros((3, 256, 128), np.float32)
    return SimpleNamespace(
        num_workers=workers,
        use_shared_memory=shared,
        batch_sampler=SimpleNamespace(batch_size=batch_size),
        dataset=SimpleNamespace(blank=lambda: image),
    )


def test_batches_that_do_not_fit_are_refused():
    message = "805 MB.*67 MB free.*--shm-size=2g.*Train.loader.num_workers.*use_shared_memory"
    with pytest.raises(ConfigError, match=message):
        require_shared_memory(loader(), "DataLoader.Train", free=lambda: 64 << 20)


def test_what_fits_or_needs_no_shared_memory_passes():
    require_shared_memory(loader(), "DataLoader.Train", free=lambda: 1 << 30)
    for fine in (loader(workers=0), loader(shared=False), loader(batch_size=16)):
        require_shared_memory(fine, "DataLoader.Train", free=lambda: 64 << 20)


def test_saved_activations_are_those_that_a_backward_pass_needs():
    model = nn.Sequential(nn.Conv2D(3, 4, 3, padding=1), nn.BatchNorm2D(4), nn.ReLU())
    model.train()
    # the convolution's output (for the batch norm), the activation's, and two gradients
    assert saved_bytes(model, [3, 8, 6]) == 4 * 4 * 4 * 8 * 6
    assert model.training and (model[1]._mean.numpy() == 0).all()


def test_mixed_precision_halves_the_activations():
    model = nn.Layer()
    model.backbone = nn.Sequential(nn.Conv2D(3, 4, 1, bias_attr=False))
    rest = 4 * 4 * 12 + (1 << 30)
    for amp, share in ((False, 1), (True, 2)):
        need = card_bytes(model, [3, 8, 6], 10, amp=amp, optimizer="Adam")
        assert need == 10 * 3 * 4 * 4 * 8 * 6 // share + rest


@pytest.mark.parametrize(("gigabytes", "warned"), [(8, True), (80, False)])
def test_a_card_that_is_too_small_is_remarked_upon(monkeypatch, gigabytes, warned):
    monkeypatch.setattr(memory_needs, "card_bytes", lambda *_, **__: 20 << 30)
    card = SimpleNamespace(total_memory=gigabytes << 30)
    monkeypatch.setattr(paddle.device.cuda, "get_device_properties", lambda: card)
    engine = SimpleNamespace(
        config={
            "Global": {"device": "gpu", "image_shape": [3, 256, 128]},
            "Optimizer": {"name": "Adam"},
        },
        plain_model=None,
        train_sampler=SimpleNamespace(batch_size=256),
        amp=False,
    )
    remark = memory_needs.card_memory_remark(engine)
    assert bool(remark) == warned
    if warned:
        assert "256 images a step need about 21 GB" in remark and "AMP" not in remark
    engine.config["Global"]["device"] = "cpu"
    assert memory_needs.card_memory_remark(engine) is None
