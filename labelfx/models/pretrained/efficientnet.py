"""EfficientNet-B0 and -Lite0 (Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", table 1), of timm's names."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from labelfx.models.layers import BatchNorm
from labelfx.models.pretrained import layers

# (blocks, kernel size, stride, expansion) of each stage.
STAGES = ((1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6))
# timm's names: networks that come from TensorFlow pad as it does and add more to the variance.
KNOWN = {
    "tf_efficientnet_lite0": {"lite": True, "same": True, "epsilon": 1e-3},
    "efficientnet_lite0": {"lite": True, "same": False, "epsilon": 1e-5},
    "tf_efficientnet_b0": {"lite": False, "same": True, "epsilon": 1e-3},
    "efficientnet_b0": {"lite": False, "same": False, "epsilon": 1e-5},
}


def recognise(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What a configuration of timm says, or None where it is of another network.

    Raises:
      ValueError: it says what no network here does, or a tensor is missing.
    """
    known = KNOWN.get(str(config.get("architecture", "")).partition(".")[0])
    if known is None:
        return None
    said = layers.of_timm(config, "channel_multiplier", "depth_multiplier")
    deeper = (config.get("model_args") or {}).get("depth_multiplier", 1)
    blocks = [math.ceil(stage[0] * deeper) for stage in STAGES]
    lasts = ["blocks.0.0.conv_pw", *(f"blocks.{stage}.0.conv_pwl" for stage in range(1, 7))]
    widths = [layers.shape_of(f"{each}.weight", shapes, 4)[0] for each in ("conv_stem", *lasts, "conv_head")]
    return {"architecture": {"blocks": blocks, "widths": widths, **known}, **said}


def names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Callable[[str], tuple[str, ...]], tuple[str, ...]]:
    return lambda name: (name,), ("classifier.*", "*.num_batches_tracked")


def blank(**architecture: Any) -> jax.Array:
    return jnp.zeros((1, 32, 32, 3))


def network(
    *,
    blocks: Sequence[int],
    widths: Sequence[int],
    lite: bool,
    same: bool,
    epsilon: float,
    norm: str,
    norm_groups: int,
    outputs: str,
    dtype: Any,
) -> nn.Module:
    """`blocks` of each stage; `widths` of the stem, of each stage and of the last convolution, which is `F`.
    `lite`: without squeeze and excitation, ReLU6 for SiLU. `same`: TensorFlow's padding."""
    return _EfficientNet(tuple(blocks), tuple(widths), lite, same, epsilon, norm, norm_groups, outputs, dtype)


class _EfficientNet(nn.Module):
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    lite: bool
    same: bool
    epsilon: float
    norm: str
    norm_groups: int
    outputs: str
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        given = x.dtype

        def norm(name, x, act=True):
            x = BatchNorm(self.norm_groups, epsilon=self.epsilon, name=name)(x, train and self.norm == "batch")
            return activate(x) if act else x

        activate = (lambda x: jnp.clip(x, 0, 6)) if self.lite else nn.silu
        sizes = {"same": self.same, "dtype": self.dtype}
        x = norm("bn1", layers.Conv(self.widths[0], 3, 2, **sizes, name="conv_stem")(x))
        for stage, (_, size, stride, expansion) in enumerate(STAGES):
            for i in range(self.blocks[stage]):
                name, before, strides = f"blocks.{stage}.{i}", x, stride if i == 0 else 1
                layer = 1
                if expansion > 1:
                    x = layers.Conv(expansion * before.shape[-1], 1, 1, **sizes, name=f"{name}.conv_pw")(x)
                    x, layer = norm(f"{name}.bn1", x), 2
                x = layers.Depthwise(size, strides, **sizes, name=f"{name}.conv_dw")(x)
                x = norm(f"{name}.bn{layer}", x)
                if not self.lite:
                    x = self.squeeze(name, x, before.shape[-1] // 4)
                last = "conv_pwl" if expansion > 1 else "conv_pw"
                x = layers.Conv(self.widths[stage + 1], 1, 1, **sizes, name=f"{name}.{last}")(x)
                x = norm(f"{name}.bn{layer + 1}", x, act=False)
                x = x + before if x.shape == before.shape else x
        x = norm("bn2", layers.Conv(self.widths[-1], 1, 1, **sizes, name="conv_head")(x))
        return x.astype(given) if self.outputs == "map" else x.mean((1, 2), dtype=given)

    def squeeze(self, name, x, width):
        """Squeeze and excitation (Hu et al. 2018)."""
        mean = x.mean((1, 2), keepdims=True)
        inner = nn.silu(layers.Conv(width, 1, 1, self.dtype, bias=True, name=f"{name}.se.conv_reduce")(mean))
        return x * nn.sigmoid(
            layers.Conv(x.shape[-1], 1, 1, self.dtype, bias=True, name=f"{name}.se.conv_expand")(inner)
        )
