"""The layers of an mlp or conv3 one after another, in float64: what each takes of some rows and what it makes of them.

A layer is an affine map of its columns, those of a convolution its patches; BatchNorm and ReLU follow all but the last.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from labelfx.config import ConfigError
from labelfx.data.augment import to_float
from labelfx.models.layers import BatchNorm
from labelfx.models.symmetries import HEAD, leaf

CHUNK = 256  # rows whose activations are in memory together
NORM = "params/{}/scale", "params/{}/bias", "batch_stats/{}/mean", "batch_stats/{}/var"
Layers = list[tuple[str, str | None]]


def layers_of(model: Mapping[str, Any]) -> Layers:
    """Names of the layers of the network in `config.model` and of a linear head, each with that of its BatchNorm.

    Raises:
      ConfigError: it is neither mlp nor conv3.
    """
    if model["name"] == "mlp":
        return [*((f"backbone/Dense_{i}", None) for i in range(len(model["hidden"]))), (HEAD, None)]
    if model["name"] == "conv3":
        return [*((f"backbone/Conv_{i}", f"backbone/BatchNorm_{i}") for i in range(3)), (HEAD, None)]
    raise ConfigError(f"config.model.name = {model['name']!r}: its layers are not solved for; allowed: conv3, mlp")


def walks(layers: Layers, a: dict[str, Any], b: dict[str, Any], inputs: np.ndarray) -> Iterator[list[Any]]:
    """For some rows after others a list of (taken, made) of each layer, either a pair: of network A and of B.

    taken: float64 [n, ..., channels], before a flattening.
    made: float64 [n, ..., units], before BatchNorm and ReLU.
    inputs: [N, ...] as in `Split.inputs`.
    """
    for start in range(0, len(inputs), CHUNK):
        rows = inputs[start : start + CHUNK]
        both = [walk(layers, variables, centred(variables, rows)) for variables in (a, b)]
        yield [tuple(zip(*pair, strict=True)) for pair in zip(*both, strict=True)]


def walk(layers: Any, variables: Any, z: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(taken, made) of each layer of one network, as in `walks`; `z` are `centred` rows."""
    for name, norm in layers:
        weights, shape = matrix(variables, name)
        y = columns(z, shape)[..., : len(weights)] @ weights
        yield z, y
        if norm:
            scale, bias, mean, var = (np.asarray(leaf(variables, path.format(norm)), np.float64) for path in NORM)
            y = (y - mean) / np.sqrt(var + BatchNorm.epsilon) * scale + bias
        z = np.maximum(y, 0)


def centred(variables: Any, inputs: np.ndarray) -> np.ndarray:
    """Rows as the backbone's first layer takes them, float64."""
    x = np.asarray(to_float(jnp.asarray(inputs)), np.float64)
    if x.ndim > 2:
        return 2 * x - 1
    scale = variables["scale"]["backbone"]
    return (x - scale["mean"]) / scale["deviation"]


def columns(z: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a unit sees wherever its kernel is applied, and a 1 for its bias: [..., K + 1]. A convolution's patches are
    those of conv3, which has stride 2 while its input is larger than 4x4."""
    if len(shape) == 2:
        seen = z.reshape(len(z), -1)
    else:
        pad, stride = shape[0] // 2, 2 if max(z.shape[1:3]) > 4 else 1
        padded = np.pad(z, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, shape[:2], (1, 2))[:, ::stride, ::stride]
        seen = np.moveaxis(windows, 3, -1).reshape(*windows.shape[:3], -1)
    return np.concatenate([seen, np.ones((*seen.shape[:-1], 1))], -1)


def matrix(variables: Any, name: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """A layer's kernel as float64 [K, units], its bias the last row of it where there is one, and its shape."""
    layer = leaf(variables, f"params/{name}")
    kernel = np.asarray(layer["kernel"], np.float64)
    rows = [kernel.reshape(-1, kernel.shape[-1]), *([layer["bias"][None]] if "bias" in layer else [])]
    return np.concatenate(rows, dtype=np.float64), kernel.shape
