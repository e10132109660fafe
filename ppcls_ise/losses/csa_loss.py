# SPDX-License-Identifier: Apache-2.0
"""Loss that trains the cluster aggregation of CSA."""

import paddle
from paddle import nn

from ppcls_ise.errors import ConfigError
from ppcls_ise.layers.precision import in_float32
from ppcls_ise.losses.cross_entropy import cross_entropy
from ppcls_ise.utils.components import register


@in_float32
def aggregation_loss(
    first: paddle.Tensor, second: paddle.Tensor, temperature: float = 0.05
) -> paddle.Tensor:
    """The two aggregates of each cluster have to find each other among those of the batch.

    With ``a_c`` and ``b_c`` the aggregates of two disjoint halves of cluster c's samples and
    ``S_ce = <a_c, b_e> / T``::

        L_csa = 1/2 mean over c of [-ln softmax over e (S_ce) at c] + 1/2 the same of S transposed

    A sample that does not belong to the cluster pulls the half that it is in away from the other
    half, so it is given less weight. Our choice: CSA (6) in docs/en/csa.md.

    Args:
        first, second: unit rows [P, D].
        temperature: ``T``, positive.

    Returns:
        Scalar (0-D), 0 for a single cluster.
    """
    logits = paddle.matmul(first, second, transpose_y=True) / temperature
    labels = paddle.arange(first.shape[0])
    return 0.5 * (cross_entropy(logits, labels) + cross_entropy(logits.t(), labels))


@register("loss")
class AggregationLoss(nn.Layer):
    """`aggregation_loss` on what `CSAHead` returns, for ``Loss.Train`` in the YAML.

    The head detaches the features first: this loss trains the attention and nothing else, so its
    weight does not compete with the contrastive loss.

    Args:
        temperature: ``T`` of the loss.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        if not temperature > 0.0:
            raise ConfigError(
                f"temperature has to be positive, got {temperature} "
                "(Loss.Train.AggregationLoss.temperature)"
            )
        self.temperature = temperature

    def forward(self, output: dict, batch_labels: paddle.Tensor) -> dict[str, paddle.Tensor]:
        head = output["logits"]
        loss = aggregation_loss(head["first_halves"], head["second_halves"], self.temperature)
        return {"AggregationLoss": loss}
