# SPDX-License-Identifier: Apache-2.0
"""TF32 without a card that has it: switches that are not there, and products that are rounded."""

import logging

import numpy as np
import paddle
import pytest

from ppcls_ise.clustering import k_nearest
from ppcls_ise.engine import gpu_search, tf32
from ppcls_ise.errors import InexactSearchError


def to_tf32(values):
    """10 of 23 bits of mantissa are kept, rounded to nearest."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.fixture
def card(monkeypatch):
    """A Paddle for cards: switches that are on, unless a test takes them away."""
    values = {"cublas_switch": True, "cudnn_switch": True}
    for name in values:
        monkeypatch.setattr(
            paddle.base.core, f"get_{name}", lambda name=name: values[name], raising=False
        )
        monkeypatch.setattr(
            paddle.base.core,
            f"set_{name}",
            lambda value, name=name: values.__setitem__(name, value),
            raising=False,
        )
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    return values


@pytest.fixture
def flags(monkeypatch):
    """The flags of a newer Paddle."""
    values = {"FLAGS_cudnn_allow_tf32": True, "FLAGS_cublas_allow_tf32": False}
    monkeypatch.setattr(paddle, "get_flags", lambda names: {name: values[name] for name in names})
    monkeypatch.setattr(paddle, "set_flags", values.update)
    return values


def test_a_cpu_computes_in_float32():
    assert tf32.state("cpu") == "float32"
    with tf32.full_float32():
        pass


def test_state_of_a_card(card, monkeypatch):
    assert tf32.state("gpu") == "tf32 for convolutions and products"
    card["cublas_switch"] = False
    assert tf32.state("gpu") == "tf32 for convolutions"
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: (7, 5))
    assert tf32.state("gpu") == "float32"
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert tf32.state("gpu") == "float32"


def test_flags_count_before_switches(card, flags):
    assert tf32.state("gpu") == "tf32 for convolutions"


def test_everything_is_off_inside_and_as_before_afterwards(card, flags):
    with pytest.raises(KeyError), tf32.full_float32():
        assert not any(card.values()) and not any(flags.values())
        raise KeyError
    assert card == {"cublas_switch": True, "cudnn_switch": True}
    assert flags == {"FLAGS_cudnn_allow_tf32": True, "FLAGS_cublas_allow_tf32": False}


@pytest.fixture
def rounding_products(monkeypatch):
    """Matrix products of a card that takes TF32 whatever is asked of it."""
    matmul = paddle.matmul

    def rounded(x, y, **options):
        x, y = (paddle.to_tensor(to_tf32(part.numpy())) for part in (x, y))
        return matmul(x, y, **options)

    monkeypatch.setattr(paddle, "matmul", rounded)


def clustered(unit_rows):
    generator = np.random.default_rng(0)
    centers = unit_rows(generator, 12, 64)
    rows = np.repeat(centers, 20, axis=0) + 0.1 * generator.standard_normal((240, 64))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_search_that_cannot_leave_tf32_falls_back_with_a_warning(
    rounding_products, unit_rows, caplog
):
    rows = clustered(unit_rows)
    with pytest.raises(InexactSearchError, match="NVIDIA_TF32_OVERRIDE"):
        k_nearest(rows, 10, backend=gpu_search.top_candidates)
    with caplog.at_level(logging.WARNING):
        found, values = gpu_search.or_blocked(
            lambda backend: k_nearest(rows, 10, backend=backend), gpu_search.top_candidates
        )
    wanted, wanted_values = k_nearest(rows, 10, backend="blocked")
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(values, wanted_values)
    assert "Searching on the processor instead" in caplog.text


def test_other_errors_are_not_taken_for_rounding():
    def compute(backend):
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        gpu_search.or_blocked(compute, gpu_search.top_candidates)


def test_faiss_gets_the_memory_that_paddle_holds_back(monkeypatch):
    emptied = []
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.device.cuda, "empty_cache", lambda: emptied.append(True))
    monkeypatch.setattr(gpu_search.faiss_search, "gpu_count", lambda: 1)
    gpu_search.backend_of("faiss_gpu")
    assert emptied
    assert gpu_search.backend_of("auto") is gpu_search.top_candidates
