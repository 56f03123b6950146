"""What a trained backbone is worth: classification from the label view, label-free scores, and floors to clear.

An eval is a function of a module here. Its positional parameters are what a run provides, by name; its keyword-only
parameters are the keys of `config.evals.<its name>`. It returns metrics and what made them, as plain Python values.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.data.augment import to_float
from labelfx.evals.classification import knn_predict
from labelfx.evals.representation import alignment, rankme, uniformity
from labelfx.models import Model

__all__ = ["alignment", "features", "knn_predict", "rankme", "uniformity"]


def features(
    model: Model, variables: Any, images: Any, rows: np.ndarray | None = None, *, batch: int = 256
) -> np.ndarray:
    """The model's outputs for rows as they are, in evaluation mode: float32 [N, F], or [len(rows), F].

    Args:
      model: a backbone, with its `variables`.
      images: uint8 [N, H, W, C] or token ids int32 [N, L], N > 0, an ndarray or lazy (`labelfx.data.Split`), read
        `batch` rows at a time.
      rows: int [L], which images, all by default.
      batch: rows a call; the last one is padded, so that a model is compiled once.
    """
    rows = np.arange(len(images)) if rows is None else rows
    found: Any = None
    before: Any = None
    for start in range(0, len(rows), batch):
        chunk = images[rows[start : start + batch]]
        padded = np.pad(chunk, [(0, batch - len(chunk)), *[(0, 0)] * (chunk.ndim - 1)])
        encoded = _encode(variables, padded, apply=model.apply)
        if found is None:
            found = np.empty((len(rows), *encoded.shape[1:]), np.float32)
        else:  # one batch is read while another is encoded
            found[start - batch : start] = before
        before = encoded
    found[start:] = np.asarray(before)[: len(chunk)]
    return found


@functools.partial(jax.jit, static_argnames="apply")
def _encode(variables, images, *, apply):
    outputs, _ = apply(variables, to_float(images), train=False)
    return outputs.astype(jnp.float32)
