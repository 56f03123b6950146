"""ConvNeXt-T and -S (Liu et al. 2022, "A ConvNet for the 2020s"), of timm's names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from labelfx.models.layers import widen
from labelfx.models.pretrained import layers

KNOWN = {"convnext_tiny": (3, 3, 9, 3), "convnext_small": (3, 3, 27, 3)}
EPSILON = 1e-6


def recognise(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What a configuration of timm says, or None where it is of another network.

    Raises:
      ValueError: it says what no network here does, or a tensor is missing.
    """
    name = str(config.get("architecture", "")).partition(".")[0]
    if name not in KNOWN:
        return None
    blocks = (config.get("model_args") or {}).get("depths", KNOWN[name])
    widths = [layers.shape_of(f"stages.{stage}.blocks.0.gamma", shapes, 1)[0] for stage in range(4)]
    return {"architecture": {"blocks": list(blocks), "widths": widths}, **layers.of_timm(config, "depths", "dims")}


def names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Callable[[str], tuple[str, ...]], tuple[str, ...]]:
    return lambda name: (name,), ("head.fc.*",)


def blank(**architecture: Any) -> jax.Array:
    return jnp.zeros((1, 32, 32, 3))


def network(
    *, blocks: Sequence[int], widths: Sequence[int], norm: str, norm_groups: int, outputs: str, dtype: Any
) -> nn.Module:
    """`blocks` and channels of each stage. `F` is the last width; features are normalised after the mean over the map,
    which is of stride 32. There are no statistics of batches for `norm` and `norm_groups` to be of."""
    return _ConvNext(tuple(blocks), tuple(widths), outputs, dtype)


class _ConvNext(nn.Module):
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    outputs: str
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        given = x.dtype
        x = layers.Patches(self.widths[0], 4, self.dtype, name="stem.0")(x)
        x = layers.LayerNorm(EPSILON, name="stem.1")(x)
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            if stage > 0:
                x = layers.LayerNorm(EPSILON, name=f"stages.{stage}.downsample.0")(x)
                x = layers.Patches(width, 2, self.dtype, name=f"stages.{stage}.downsample.1")(x)
            for i in range(blocks):
                name = f"stages.{stage}.blocks.{i}"
                y = layers.Depthwise(7, 1, self.dtype, bias=True, name=f"{name}.conv_dw")(x)
                y = layers.LayerNorm(EPSILON, name=f"{name}.norm")(y)
                y = layers.dense(y, 4 * width, self.dtype, f"{name}.mlp.fc1")
                y = layers.dense(jax.nn.gelu(y, approximate=False), width, self.dtype, f"{name}.mlp.fc2")
                gamma = self.param(f"{name}.gamma", nn.initializers.ones, (width,), widen(y).dtype)
                x = x + y * layers.along(gamma, y)
        features = layers.LayerNorm(EPSILON, name="head.norm")(x.mean((1, 2), dtype=given))
        return x.astype(given) if self.outputs == "map" else features
