# SPDX-License-Identifier: Apache-2.0
"""Features of a model in training by a static graph of its current weights, on a CPU."""

import hashlib
import tempfile

import numpy as np
import paddle
from paddle import nn

from ppcls_ise import compat
from ppcls_ise.inference.static_model import StaticExport, StaticModel, evaluation_mode

_CHECKED_IMAGES = 2
# Largest deviation from the eager features, in parts of their largest value.
_TOLERANCE = {"fp32": 1e-3, "bf16": 1e-1}


class StaticFeatures:
    """Compute the evaluation-mode features of ``model`` with Paddle Inference.

    The network is traced once and saved (to a temporary folder of this process) whenever a weight
    or a running statistic has changed. Where Paddle cannot make it static, or makes something else
    of it, that is logged once and the caller computes eagerly.

    Args:
        model: a ``RecModel``, float32, on the CPU.
        precision: fp32 or bf16.
    """

    def __init__(self, model: nn.Layer, precision: str = "fp32") -> None:
        self._model = model
        self._precision = precision
        self._export: tuple[tuple[int, ...], StaticExport] | None = None
        self._network: tuple[bytes, StaticModel] | None = None
        self._given_up = False

    def network(self, images: np.ndarray) -> StaticModel | None:
        """The static model of the current weights; None where there is none.

        Args:
            images: [B, 3, H, W], the first batch; the first time, two of its images are computed
                eagerly as well and compared.

        Cost: reading all weights; if one has changed, writing and loading them.
        """
        if self._given_up:
            return None
        state = self._fingerprint(images.shape[1:])
        if self._network is not None and self._network[0] == state:
            return self._network[1]
        self._network = None
        try:
            network = self._load(images)
        except Exception as error:  # from foreign code: eager features are always possible
            self._given_up = True
            compat.logger().warning(f"features are computed eagerly, which is slower: {error}")
            return None
        self._network = state, network
        return network

    def _load(self, images: np.ndarray) -> StaticModel:
        shape = images.shape[1:]
        export = self._export[1] if self._export and self._export[0] == shape else None
        known = export is not None
        if export is None:
            export = StaticExport(self._model, shape, normalize=False)
            self._export = shape, export
        with tempfile.TemporaryDirectory(prefix="ppcls_ise_") as folder:
            export.save(folder)
            network = StaticModel(folder, precision=self._precision)
        if not known:
            self._compare(network, images[:_CHECKED_IMAGES])
        return network

    @paddle.no_grad()
    def _compare(self, network: StaticModel, images: np.ndarray) -> None:
        with evaluation_mode(self._model):
            eager = self._model(paddle.to_tensor(images))["features"].numpy()
        error = np.abs(network(images) - eager).max()
        if error > _TOLERANCE[self._precision] * np.abs(eager).max():
            raise RuntimeError(
                f"the static graph's features are off by {error:.2g}, the largest is "
                f"{np.abs(eager).max():.2g}"
            )

    def _fingerprint(self, shape: tuple[int, ...]) -> bytes:
        digest = hashlib.blake2b(repr(shape).encode())
        for name, tensor in self._model.state_dict().items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return digest.digest()
