# SPDX-License-Identifier: Apache-2.0
"""Vision transformers for upright crops, with a plain or a convolutional stem."""

import math
from collections.abc import Sequence

import numpy as np
import paddle
from paddle import nn
from paddle.nn.initializer import Constant, Normal, TruncatedNormal

from ppcls_ise.errors import ConfigError, WeightsError
from ppcls_ise.layers import IBN
from ppcls_ise.utils.components import register

PATCH = 16
_STEM_CHANNELS = 64
_STEM_STRIDE = 2
_MLP_RATIO = 4
_EPSILON = 1e-6
_RATIOS = (1, 2, 3)  # height / width of the grids that published positions have


@register("backbone")
class ReIDViT(nn.Layer):
    """ViT/16 whose class token is the feature: [B, 3, H, W] -> [B, D].

    As in TransReID-SSL (Luo et al., arXiv 2111.12084): patches in row-major order, class token
    first, one learned position per token, pre-norm blocks, LayerNorm of the class token at the
    end. The BN neck follows (``ReIDNeck`` with pooling ``none``).

    ``conv_stem`` (their ICS): 7x7 convolution of stride 2, IBN, ReLU, 3x3, IBN, ReLU, 3x3, batch
    norm, ReLU with 64 channels, then the patches by an 8x8 convolution of stride 8.

    Drop path drops a residual branch of a whole image with a probability that grows linearly from
    0 in the first block to ``drop_path_rate`` in the last one, and scales those that stay by
    1 / (1 - p). It draws from Paddle's generator, which a run seeds before every step.

    Tensors are called as in the PyTorch code: ``cls_token`` [1, 1, D], ``pos_embed`` [1, 1 + h·w,
    D], ``patch_embed.proj.*``, with a stem ``patch_embed.conv.{0,3,6}.weight`` and
    ``patch_embed.conv.{1,4}.{IN,BN}.*``, ``patch_embed.conv.7.*``, then ``blocks.<n>.norm1.*``,
    ``.attn.qkv.*``, ``.attn.proj.*``, ``.norm2.*``, ``.mlp.fc1.*``, ``.mlp.fc2.*``, ``norm.*``.
    Matrices are [in, out], as everywhere in Paddle.

    Cost: O(t² D + t D²) per block and image for t = 1 + H·W / 256 tokens.

    Args:
        embed_dim: D, a multiple of ``num_heads``.
        depth: blocks.
        num_heads: heads of the attention.
        image_size: [H, W], multiples of 16; other images are refused.
        conv_stem: a convolutional stem with IBN before the patches (ICS).
        drop_path_rate: probability in the last block, in [0, 1).
        pretrained: False. A path is read by the engine; there is no file to download.

    Raises:
        ConfigError: a value is out of its range; names the key.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        image_size: Sequence[int] = (256, 128),
        conv_stem: bool = False,
        drop_path_rate: float = 0.1,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if pretrained:
            raise ConfigError(
                "Arch.Backbone.pretrained: nobody publishes this network for Paddle. Convert a "
                "checkpoint (.pth) and give the .pdparams file's path; see docs/en/weights.md"
            )
        if len(image_size) != 2 or any(n < PATCH or n % PATCH for n in image_size):
            raise ConfigError(
                f"Arch.Backbone.image_size has to be [height, width], multiples of {PATCH}, got "
                f"{list(image_size)}"
            )
        if min(embed_dim, depth, num_heads) < 1 or embed_dim % num_heads:
            raise ConfigError(
                f"Arch.Backbone.embed_dim has to be a multiple of num_heads, and depth >= 1, got "
                f"{embed_dim}, {num_heads} and {depth}"
            )
        if not 0.0 <= drop_path_rate < 1.0:
            raise ConfigError(
                f"Arch.Backbone.drop_path_rate has to be in [0, 1), got {drop_path_rate!r}"
            )
        self.image_size = list(image_size)
        self.grid = (image_size[0] // PATCH, image_size[1] // PATCH)
        tokens = 1 + self.grid[0] * self.grid[1]
        self.patch_embed = _PatchEmbedding(embed_dim, conv_stem=conv_stem)
        self.cls_token = self.create_parameter([1, 1, embed_dim], default_initializer=_small())
        self.pos_embed = self.create_parameter([1, tokens, embed_dim], default_initializer=_small())
        rates = np.linspace(0.0, drop_path_rate, depth)
        self.blocks = nn.LayerList(
            [_Block(embed_dim, num_heads, drop_path=float(rate)) for rate in rates]
        )
        self.norm = nn.LayerNorm(embed_dim, epsilon=_EPSILON)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        if list(images.shape[2:]) != self.image_size:
            raise ConfigError(
                f"the network is for images of {self.image_size}, but got "
                f"{list(images.shape[2:])} (height, width): set Arch.Backbone.image_size to what "
                "transform_ops give, and Global.image_shape too"
            )
        tokens = self.patch_embed(images)
        first = self.cls_token.expand([tokens.shape[0], -1, -1])
        tokens = paddle.concat([first, tokens], axis=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def adapt_weights(self, state: dict[str, np.ndarray], prefix: str) -> list[str]:
        """Resize the positions in ``state`` to this network's grid, where theirs is another.

        Args:
            state: name -> array of a weight file, changed in place.
            prefix: of this network's names in it.

        Returns:
            What was done, a line each.

        Raises:
            WeightsError: the file's positions are of no known grid.
        """
        name = f"{prefix}pos_embed"
        found, wanted = state.get(name), self.pos_embed.shape
        if found is None or found.ndim != 3 or found.shape[1] == wanted[1]:
            return []
        if (found.shape[0], found.shape[2]) != (wanted[0], wanted[2]):
            return []  # of another network, which the comparison of shapes says
        state[name] = resize_positions(found, self.grid)
        return [f"{name} resized from {found.shape[1] - 1} positions to {self.grid}"]


@register("backbone")
def ViT_small_patch16_reid(  # noqa: N802
    image_size: Sequence[int] = (256, 128),
    conv_stem: bool = False,
    drop_path_rate: float = 0.1,
    pretrained: bool = False,
) -> ReIDViT:
    """ViT-S/16: D = 384, 12 blocks, 6 heads; see `ReIDViT`."""
    return ReIDViT(
        embed_dim=384,
        depth=12,
        num_heads=6,
        image_size=image_size,
        conv_stem=conv_stem,
        drop_path_rate=drop_path_rate,
        pretrained=pretrained,
    )


@register("backbone")
def ViT_base_patch16_reid(  # noqa: N802
    image_size: Sequence[int] = (256, 128),
    conv_stem: bool = False,
    drop_path_rate: float = 0.1,
    pretrained: bool = False,
) -> ReIDViT:
    """ViT-B/16: D = 768, 12 blocks, 12 heads; see `ReIDViT`."""
    return ReIDViT(
        embed_dim=768,
        depth=12,
        num_heads=12,
        image_size=image_size,
        conv_stem=conv_stem,
        drop_path_rate=drop_path_rate,
        pretrained=pretrained,
    )


def resize_positions(
    positions: np.ndarray, grid: tuple[int, int], *, hw_ratio: int | None = None
) -> np.ndarray:
    """Position embeddings for another grid of patches.

    The class token's position is kept; the others, on a grid of height sqrt(n·r) and width
    height / r, are resized bilinearly (half-pixel centers, no antialiasing).

    Args:
        positions: [1, 1 + n, D].
        grid: height and width wanted, in patches.
        hw_ratio: r; None takes the least of 1, 2, 3 for which n·r is a square.

    Returns:
        [1, 1 + h·w, D], float32.

    Raises:
        WeightsError: n positions do not make such a grid.
    """
    count = max(positions.shape[1] - 1, 0)
    for ratio in _RATIOS if hw_ratio is None else (hw_ratio,):
        height = math.isqrt(count * ratio)
        if count and height * height == count * ratio and height % ratio == 0:
            break
    else:
        raise WeightsError(
            f"{count} positions are no grid of which the height is {hw_ratio or '1, 2 or 3'} times "
            "the width: they cannot be resized"
        )
    old = positions[0, 1:].astype(np.float32).reshape(height, height // ratio, -1)
    new = _linear(_linear(old, grid[0], axis=0), grid[1], axis=1)
    return np.concatenate(
        [positions[:, :1].astype(np.float32), new.reshape(1, grid[0] * grid[1], -1)], axis=1
    )


def _linear(values: np.ndarray, size: int, *, axis: int) -> np.ndarray:
    """Linear interpolation along an axis: output i is at (i + 1/2)·old / new - 1/2, clamped."""
    old = values.shape[axis]
    place = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, None)
    low = np.minimum(place.astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    share = (place - low).astype(np.float32).reshape(shape)
    return values.take(low, axis) * (1 - share) + values.take(high, axis) * share


def _small() -> TruncatedNormal:
    return TruncatedNormal(std=0.02)


def _linear_layer(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(
        inputs,
        outputs,
        weight_attr=paddle.ParamAttr(initializer=_small()),
        bias_attr=paddle.ParamAttr(initializer=Constant(0.0)),
    )


class _PatchEmbedding(nn.Layer):
    """[B, 3, H, W] -> [B, H·W / 256, D], row by row."""

    def __init__(self, embed_dim: int, *, conv_stem: bool) -> None:
        super().__init__()
        self.conv: nn.Layer | None = None
        channels, patch = 3, PATCH
        if conv_stem:
            width = _STEM_CHANNELS
            self.conv = nn.Sequential(
                nn.Conv2D(3, width, 7, stride=_STEM_STRIDE, padding=3, bias_attr=False),
                IBN(width),
                nn.ReLU(),
                nn.Conv2D(width, width, 3, padding=1, bias_attr=False),
                IBN(width),
                nn.ReLU(),
                nn.Conv2D(width, width, 3, padding=1, bias_attr=False),
                nn.BatchNorm2D(width),
                nn.ReLU(),
            )
            channels, patch = width, PATCH // _STEM_STRIDE
        deviation = math.sqrt(2.0 / (patch * patch * embed_dim))
        self.proj = nn.Conv2D(
            channels,
            embed_dim,
            patch,
            stride=patch,
            weight_attr=paddle.ParamAttr(initializer=Normal(std=deviation)),
        )

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        if self.conv is not None:
            images = self.conv(images)
        return self.proj(images).flatten(2).transpose([0, 2, 1])


class _Attention(nn.Layer):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv = _linear_layer(dim, 3 * dim)
        self.proj = _linear_layer(dim, dim)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        tokens, dim = x.shape[1], x.shape[2]
        qkv = self.qkv(x).reshape([-1, tokens, 3, self.num_heads, self.head_dim])
        query, key, value = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
        scores = paddle.matmul(query * self.head_dim**-0.5, key, transpose_y=True)
        mixed = paddle.matmul(nn.functional.softmax(scores), value)
        return self.proj(mixed.transpose([0, 2, 1, 3]).reshape([-1, tokens, dim]))


class _MLP(nn.Layer):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = _linear_layer(dim, _MLP_RATIO * dim)
        self.fc2 = _linear_layer(_MLP_RATIO * dim, dim)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class _Block(nn.Layer):
    def __init__(self, dim: int, num_heads: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, epsilon=_EPSILON)
        self.attn = _Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, epsilon=_EPSILON)
        self.mlp = _MLP(dim)
        # Dropout of one number per image is drop path.
        self.drop_path = nn.Dropout(drop_path, axis=0) if drop_path else nn.Identity()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
