"""Layers of encoders from elsewhere, with PyTorch's or TensorFlow's padding, and what their configurations say."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from labelfx.models.layers import widen


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
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, widen(x).dtype)
        kernel, x = kernel.astype(self.dtype or x.dtype), x.astype(self.dtype or x.dtype)
        if self.size == 1:
            y = jnp.einsum("bhwi,io->bhwo", x[:, :: self.stride, :: self.stride], kernel[0, 0])
        else:
            pads = _padding(x.shape[1:3], self.size, self.stride, self.same)
            strides, order = (self.stride, self.stride), ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=order)
        if self.bias:
            y = y + along(self.param("bias", nn.initializers.zeros, (self.features,), widen(x).dtype), y)
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
        kernel = self.param("kernel", nn.initializers.he_normal(), (self.size, self.size, 1, channels), widen(x).dtype)
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
            total = jnp.zeros((x.shape[0], height, width, channels), x.dtype)
            for i in range(self.size):
                for j in range(self.size):
                    rows, columns = (
                        slice(at, at + (n - 1) * self.stride + 1, self.stride) for at, n in ((i, height), (j, width))
                    )
                    total = total + padded[:, rows, columns] * along(kernel[i, j, 0], x)
            return total

        y = jax.lax.platform_dependent(x, kernel, cpu=shifted, default=grouped)
        if self.bias:
            y = y + along(self.param("bias", nn.initializers.zeros, (channels,), widen(x).dtype), y)
        return y


class Patches(nn.Module):
    """A convolution of square windows that do not overlap, which is a product of matrices; what is left of a side that
    `size` does not divide is cut off."""

    features: int
    size: int
    dtype: Any
    bias: bool = True

    @nn.compact
    def __call__(self, x):
        height, width = (side // self.size for side in x.shape[1:3])
        shape = self.size, self.size, x.shape[-1], self.features
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, widen(x).dtype)
        kernel, x = kernel.astype(self.dtype or x.dtype), x.astype(self.dtype or x.dtype)
        x = x[:, : height * self.size, : width * self.size]
        windows = x.reshape(x.shape[0], height, self.size, width, self.size, -1).transpose(0, 1, 3, 2, 4, 5)
        y = windows.reshape(x.shape[0], height, width, -1) @ kernel.reshape(-1, self.features)
        if self.bias:
            y = y + along(self.param("bias", nn.initializers.zeros, (self.features,), widen(x).dtype), y)
        return y


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, in the dtypes of `models.layers.BatchNorm`; `epsilon` is added to the
    variance, which is the mean square of the deviations (Linen's is a difference of two means unless told)."""

    epsilon: float

    @nn.compact
    def __call__(self, x):
        wide = widen(x)
        centred = wide - wide.mean(-1, keepdims=True)
        deviation = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], wide.dtype)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], wide.dtype)
        return (centred * (deviation * along(scale, wide)) + along(bias, wide)).astype(x.dtype)


def dense(x: jax.Array, features: int, dtype: Any, name: str, bias: bool = True) -> jax.Array:
    """A dense layer over the last axis. Call it inside a compact Linen method."""
    return nn.Dense(features, bias, dtype=dtype, param_dtype=widen(x).dtype, name=name)(x)


def along(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A vector [C] that goes with the last axis of `x`, in its dtype."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape).astype(x.dtype)


def _padding(sides, size, stride, same):
    if not same:
        return [(size // 2, size // 2)] * 2
    total = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in sides]
    return [(each // 2, each - each // 2) for each in total]


def of_timm(config: Mapping[str, Any], *arguments: str, pools: Sequence[str] = ("avg",)) -> dict[str, Any]:
    """What timm's configuration says of images, for a description.

    arguments: the keys of its `model_args` that the tensors' shapes or the family account for.
    pools: what `global_pool` may be.

    Raises:
      ValueError: it has others, which may change what is computed, or does not say how images are normalised.
    """
    given = config.get("model_args") or {}
    for key in given:
        if key not in ("img_size", "num_classes", "global_pool", *arguments):
            raise ValueError(f"model_args.{key} of config.json is not one that labelfx knows")
    for pool in (given.get("global_pool"), config.get("global_pool")):
        if pool and pool not in pools:
            raise ValueError(f"global_pool {pool!r} of config.json: must be {' or '.join(map(repr, pools))}")
    said = config.get("pretrained_cfg") or {}
    size = _said(said, "input_size", "config.json", "pretrained_cfg.")[-1]
    mean, std = (_said(said, key, "config.json", "pretrained_cfg.") for key in ("mean", "std"))
    return _images(mean, std, size, said.get("interpolation", "bicubic")) | {"licence": said.get("license") or ""}


def unit(x):
    """Features [B, F] scaled to length 1; those of length 0 stay 0, and have gradients."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), -1, keepdims=True), 1e-24))


def of_hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    """What Hugging Face's `preprocessor_config.json` says of images, for a description.

    Raises:
      ValueError: there is none, or it does not say how images are normalised.
    """
    file = "preprocessor_config.json"
    if "preprocessor" not in config:
        raise ValueError(f"{file} is missing; it says how images are normalised")
    said = config["preprocessor"]
    size = _said(said, "crop_size" if said.get("do_center_crop") else "size", file)
    if isinstance(size, dict):
        size = size.get("height") or _said(size, "shortest_edge", file, "size.")
    mean, std = (_said(said, key, file) for key in ("image_mean", "image_std"))
    return _images(mean, std, size, {2: "bilinear", 3: "bicubic"}.get(said.get("resample", 3)))


def _said(found, key, file, within=""):
    if key not in found:
        raise ValueError(f"{file} must say {within}{key}, as its library's own do")
    return found[key]


def _images(mean, std, size, interpolation):
    if interpolation not in ("bicubic", "bilinear"):
        raise ValueError(f"images of interpolation {interpolation!r}: must be 'bicubic' or 'bilinear'")
    preprocessing = {"mean": list(mean), "std": list(std), "size": size, "interpolation": interpolation}
    return {"takes": "images", "preprocessing": preprocessing}


def shape_of(name: str, shapes: Mapping[str, tuple[int, ...]], *axes: int) -> tuple[int, ...]:
    """The shape of a tensor that tells how a network is built, of as many axes as one of `axes`.

    Raises:
      ValueError: the file has none of that name, or it has not so many axes.
    """
    if name not in shapes:
        raise ValueError(f"has no tensor {name!r}")
    if len(shapes[name]) not in axes:
        raise ValueError(f"{name} {list(shapes[name])}: of the wrong shape, must have {axes[-1]} axes")
    return shapes[name]


def renamed(table: Mapping[str, str], prefix: str = "") -> Callable[[str], tuple[str, ...]]:
    """The `called` of a family's `names` for a library that calls things otherwise.

    table: our name, whole or but for its last part -> the library's, several where they are one here; `#` stands for
      any number. What it lacks is called the same there.
    """
    compiled = [
        (re.compile(re.escape(ours).replace(r"\#", r"(\d+)")), theirs.split()) for ours, theirs in table.items()
    ]

    def called(name):
        stem, _, leaf = name.rpartition(".")
        for whole, end in ((name, ""), (stem, f".{leaf}")):
            for pattern, theirs in compiled:
                if match := pattern.fullmatch(whole):
                    numbers = match.groups()
                    return tuple(prefix + _numbered(each, numbers) + end for each in theirs)
        return (prefix + name,)

    return called


def _numbered(name, numbers):
    for number in numbers:
        name = name.replace("#", number, 1)
    return name
