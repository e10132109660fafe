# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle

from ppcls_ise.checks.transfers import transfers


def test_what_counts():
    tensor = paddle.arange(4)
    with transfers() as found:
        tensor.numpy()
        float(tensor.sum())
        if (tensor > 1).any():
            tensor.tolist()
        paddle.nonzero(tensor)
        paddle.to_tensor(np.zeros(3))
        paddle.to_tensor(tensor)
        tensor.set_value(np.zeros(4, np.int64))
        tensor + 1, tensor.sum(), paddle.gather(tensor, tensor)
    assert found == [
        "to host by numpy",
        "to host by __float__",
        "to host by __bool__",
        "to host by tolist",
        "to host by nonzero",
        "to device by to_tensor",
        "to device by set_value",
    ]


def test_paddle_is_as_before_afterwards():
    before = paddle.Tensor.numpy, paddle.Tensor.__bool__, paddle.to_tensor, paddle.Tensor.set_value
    try:
        with transfers() as found:
            raise KeyError
    except KeyError:
        pass
    assert not found
    after = paddle.Tensor.numpy, paddle.Tensor.__bool__, paddle.to_tensor, paddle.Tensor.set_value
    assert before == after
