"""Backbones: float images [B, H, W, C] in [0, 1] to features [B, F].

`dtype` is the compute dtype. Parameters are float32, features have the dtype of the images, and "float32" leaves
float64 images and parameters at float64. The statistics of batch normalisation (see `layers.batch_norm`) are taken over
the whole batch: under `jit` over a mesh that is the global batch, not a device's share of it.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from labelfx.models import Model, from_linen
from labelfx.models.layers import batch_norm, compute_dtype
from labelfx.types import PositiveInt

_he_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def mlp(*, hidden: tuple[int, ...], dtype: Literal["float32", "bfloat16"]) -> Model:
    """Flattened pixels through Dense-ReLU layers of the sizes `hidden`; `()` gives the pixels themselves."""
    return from_linen(_Mlp(hidden, compute_dtype(dtype)))


def conv3(*, width: PositiveInt, dtype: Literal["float32", "bfloat16"]) -> Model:
    """Three 3x3 Conv-BatchNorm-ReLU layers of `width`, `2 width` and `4 width` channels, flattened.

    For small images on a CPU: a layer has stride 2 while its input is larger than 4x4, so 28x28 and 32x32 images end
    at 4x4 as do 8x8 ones, with `F = 64 width`. Width 32 has 92,896 parameters on grey images, width 48 208,464.
    """
    return from_linen(_Conv3(width, compute_dtype(dtype)))


def resnet18(*, stem: Literal["cifar", "imagenet"], width: PositiveInt, dtype: Literal["float32", "bfloat16"]) -> Model:
    """ResNet-18 (He et al. 2016, table 1) with basic blocks; `width` 64 is published. `F = 8 width`.

    The "imagenet" stem is a 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2, the "cifar" stem one 3x3
    convolution of stride 1 (for images of about 32x32).
    """
    return from_linen(_ResNet((2, 2, 2, 2), False, stem, width, compute_dtype(dtype)))


def resnet50(*, stem: Literal["cifar", "imagenet"], width: PositiveInt, dtype: Literal["float32", "bfloat16"]) -> Model:
    """ResNet-50 v1.5 as in torchvision: bottleneck blocks (He et al. 2016, table 1) with the stride in the 3x3.

    `width` 64 is published. `F = 32 width`. Stems as for `resnet18`.
    """
    return from_linen(_ResNet((3, 4, 6, 3), True, stem, width, compute_dtype(dtype)))


def _centred(images):
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"backbones take float images in [0, 1], got {images.dtype}; see augment.to_float")
    return 2 * images - 1


class _Mlp(nn.Module):
    hidden: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, images, train):
        x = _centred(images).reshape(len(images), -1)
        for features in self.hidden:
            x = nn.relu(nn.Dense(features, dtype=self.dtype)(x))
        return x.astype(images.dtype)


class _Conv3(nn.Module):
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, images, train):
        x = _centred(images)
        for features in (self.width, 2 * self.width, 4 * self.width):
            strides = 2 if max(x.shape[1:3]) > 4 else 1
            x = _conv(x, features, 3, strides, self.dtype)
            x = nn.relu(batch_norm(x, train))
        return x.reshape(len(x), -1).astype(images.dtype)


class _ResNet(nn.Module):
    stage_sizes: tuple[int, ...]
    bottleneck: bool
    stem: str
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, images, train):
        size, strides = (3, 1) if self.stem == "cifar" else (7, 2)
        x = _conv(_centred(images), self.width, size, strides, self.dtype)
        x = nn.relu(batch_norm(x, train))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                x = _Block(self.width * 2**stage, strides, self.bottleneck, self.dtype)(x, train)
        return x.mean((1, 2), dtype=images.dtype)


class _Block(nn.Module):
    width: int
    strides: int
    bottleneck: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        if self.bottleneck:  # (channels, kernel size, strides) of each convolution
            layers = [(self.width, 1, 1), (self.width, 3, self.strides), (4 * self.width, 1, 1)]
        else:
            layers = [(self.width, 3, self.strides), (self.width, 3, 1)]
        y = x
        for i, (features, size, strides) in enumerate(layers):
            y = nn.relu(y) if i > 0 else y
            y = batch_norm(_conv(y, features, size, strides, self.dtype), train)
        if x.shape != y.shape:
            x = _conv(x, features, 1, self.strides, self.dtype, name="shortcut")
            x = batch_norm(x, train, name="shortcut_norm")
        return nn.relu(x + y)


def _conv(x, features, size, strides, dtype, name=None):
    # Padding as in torchvision: at stride 2, "SAME" would shift the grid by one pixel.
    layer = nn.Conv(
        features, (size, size), strides, size // 2, use_bias=False, kernel_init=_he_init, dtype=dtype, name=name
    )
    return layer(x)
