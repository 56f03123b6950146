"""ResNet-18, -34, -50 and -101 (He et al. 2016, table 1; v1.5, the stride in the 3x3), of timm's names, which are
torchvision's, and of Hugging Face's `resnet`."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from labelfx.models.layers import BatchNorm
from labelfx.models.pretrained import layers

KNOWN = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def recognise(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """What a configuration of timm or of Hugging Face says, or None where it is of another network.

    Raises:
      ValueError: it says what no network here does, or a tensor is missing.
    """
    name = str(config.get("architecture", "")).partition(".")[0]
    if name in KNOWN:
        blocks, said = KNOWN[name], layers.of_timm(config, "layers", "channels")
        blocks = (config.get("model_args") or {}).get("layers", blocks)
        bottleneck = name in ("resnet50", "resnet101")
    elif config.get("model_type") == "resnet":
        if config.get("downsample_in_bottleneck") or config.get("downsample_in_first_stage"):
            raise ValueError("config.json: downsample_in_bottleneck and downsample_in_first_stage must be false")
        if config.get("hidden_act", "relu") != "relu":
            raise ValueError(f"hidden_act {config['hidden_act']!r} of config.json: must be 'relu'")
        blocks, said = config.get("depths", (3, 4, 6, 3)), layers.of_hugging_face(config)
        bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
    else:
        return None
    called, _ = names(shapes)
    firsts = [called(f"{layer}.weight")[0] for layer in ("conv1", *(f"layer{stage}.0.conv1" for stage in range(1, 5)))]
    widths = [layers.shape_of(each, shapes, 4)[0] for each in firsts]
    return {"architecture": {"blocks": list(blocks), "widths": widths, "bottleneck": bottleneck}, **said}


def names(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Callable[[str], tuple[str, ...]], tuple[str, ...]]:
    stem = "embedder.embedder"
    prefixes = [each for each in ("", "resnet.") if f"{each}{stem}.convolution.weight" in shapes]
    kinds = {
        "conv": "convolution",
        "bn": "normalization",
        "downsample.0": "convolution",
        "downsample.1": "normalization",
    }

    def hugging_face(name: str) -> tuple[str, ...]:
        if match := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.\d)(\d?)\.(\w+)", name):
            stage, block, kind, layer, leaf = match.groups()
            within = f"layer.{int(layer) - 1}" if layer else "shortcut"
            return (f"{prefixes[0]}encoder.stages.{int(stage) - 1}.layers.{block}.{within}.{kinds[kind]}.{leaf}",)
        kind, _, leaf = name.partition("1.")
        return (f"{prefixes[0]}{stem}.{kinds[kind]}.{leaf}",)

    return hugging_face if prefixes else lambda name: (name,), ("fc.*", "classifier.*", "*.num_batches_tracked")


def blank(**architecture: Any) -> jax.Array:
    return jnp.zeros((1, 32, 32, 3))


def network(
    *,
    blocks: Sequence[int],
    widths: Sequence[int],
    bottleneck: bool,
    norm: str,
    norm_groups: int,
    outputs: str,
    dtype: Any,
) -> nn.Module:
    """`blocks` of each stage; `widths` of the stem and of each stage's 3x3 convolutions. `F` is the last width, of
    bottlenecks four times as much. The map is of stride 32, after the last ReLU."""
    return _ResNet(tuple(blocks), tuple(widths), bottleneck, norm, norm_groups, outputs, dtype)


class _ResNet(nn.Module):
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool
    norm: str
    norm_groups: int
    outputs: str
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        given = x.dtype

        def layer(conv, norm, x, width, size, stride=1):
            x = layers.Conv(width, size, stride, self.dtype, name=conv)(x)
            return BatchNorm(self.norm_groups, name=norm)(x, train and self.norm == "batch")

        x = nn.relu(layer("conv1", "bn1", x, self.widths[0], 7, 2))
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths[1:], strict=True), 1):
            for i in range(blocks):
                name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
                if self.bottleneck:  # channels, kernel size, stride
                    sizes = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
                else:
                    sizes = [(width, 3, stride), (width, 3, 1)]
                y = x
                for n, each in enumerate(sizes, 1):
                    y = layer(f"{name}.conv{n}", f"{name}.bn{n}", nn.relu(y) if n > 1 else y, *each)
                if stride > 1 or x.shape != y.shape:
                    x = layer(f"{name}.downsample.0", f"{name}.downsample.1", x, y.shape[-1], 1, stride)
                x = nn.relu(x + y)
        return x.astype(given) if self.outputs == "map" else x.mean((1, 2), dtype=given)
