"""Layers of encoders from elsewhere, with PyTorch's or TensorFlow's padding, and what their configurations say."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class Conv(nn.Module):
    """A convolution of a square window. One of 1 x 1 is a product of matrices: on a CPU that is the faster.

    same: pads as TensorFlow does, the odd pixel at the end; else `size // 2` on both sides, as PyTorch's networks do.
    """

    features: int
    size: int
    stride: int
    dtype: Any
    same: bool = False
    bias: bool = False

    @nn.compact
    def __call__(self, x):
        shape = self.size, self.size, x.shape[-1], self.features
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, _parameters(x))
        kernel, x = kernel.astype(self.dtype or x.dtype), x.astype(self.dtype or x.dtype)
        if self.size == 1:
            y = jnp.einsum("bhwi,io->bhwo", x[:, :: self.stride, :: self.stride], kernel[0, 0])
        else:
            pads = _padding(x.shape[1:3], self.size, self.stride, self.same)
            strides, order = (self.stride, self.stride), ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=order)
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), _parameters(x)).astype(y.dtype)
        return y


class Depthwise(nn.Module):
    """A convolution of each channel by itself; on a CPU a sum of shifted products, which is several times faster there
    than XLA's grouped convolution."""

    size: int
    stride: int
    dtype: Any
    same: bool = False
    bias: bool = False

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.he_normal(), (self.size, self.size, 1, channels), _parameters(x))
        kernel, x = kernel.astype(self.dtype or x.dtype), x.astype(self.dtype or x.dtype)
        pads = _padding(x.shape[1:3], self.size, self.stride, self.same)

        def grouped(x, kernel):
            strides, order = (self.stride, self.stride), ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(
                x, kernel, strides, pads, dimension_numbers=order, feature_group_count=channels
            )

        def shifted(x, kernel):
            padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
            height, width = ((n - self.size) // self.stride + 1 for n in padded.shape[1:3])
            total = jnp.zeros((len(x), height, width, channels), x.dtype)
            for i in range(self.size):
                for j in range(self.size):
                    rows, columns = (
                        slice(at, at + (n - 1) * self.stride + 1, self.stride) for at, n in ((i, height), (j, width))
                    )
                    total = total + padded[:, rows, columns] * kernel[i, j, 0]
            return total

        y = jax.lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)
        if self.bias:
            y = y + self.param("bias", nn.initializers.zeros, (channels,), _parameters(x)).astype(y.dtype)
        return y


def _padding(sides, size, stride, same):
    if not same:
        return [(size // 2, size // 2)] * 2
    total = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in sides]
    return [(each // 2, each - each // 2) for each in total]


def _parameters(x):
    """Parameters are float32, or float64 where the rows are."""
    return jnp.promote_types(x.dtype, jnp.float32)


def of_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's `pretrained_cfg` says of images, for a description."""
    said = config.get("pretrained_cfg", {})
    preprocessing = {
        "mean": list(said.get("mean", (0.485, 0.456, 0.406))),
        "std": list(said.get("std", (0.229, 0.224, 0.225))),
        "size": said.get("input_size", (3, 224, 224))[-1],
        "interpolation": said.get("interpolation", "bicubic"),
    }
    return {"takes": "images", "preprocessing": preprocessing, "licence": said.get("license", "")}
