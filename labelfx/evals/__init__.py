"""What a trained backbone is worth: classification from the label view, label-free scores, and floors to clear.

An eval is a function of a module here. Its positional parameters are what a run provides, by name; its keyword-only
parameters are the keys of `config.evals.<its name>`. It returns metrics and what made them, as plain Python values.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.data.augment import to_float
from labelfx.evals.classification import knn_predict
from labelfx.evals.representation import alignment, rankme, uniformity
from labelfx.models import Model, pooled, with_sentences

__all__ = ["alignment", "features", "head_outputs", "knn_predict", "rankme", "uniformity"]


def features(
    model: Model, variables: Any, images: Any, rows: np.ndarray | None = None, *, batch: int = 256
) -> np.ndarray:
    """The model's features of rows as they are, in evaluation mode: float32 [N, F], or [len(rows), F].

    Args:
      model: a backbone, with its `variables`; of one that gives maps the features are `labelfx.models.pooled`.
      images: uint8 [N, H, W, C] or token ids int32 [N, L], N > 0, an ndarray or lazy (`labelfx.data.Split`), read
        `batch` rows at a time.
      rows: int [L], which images, all by default.
      batch: rows a call; the last one is padded, so that a model is compiled once.
    """
    rows = np.arange(len(images)) if rows is None else rows
    return _joined(_encoded(model, variables, images, rows, batch, maps=False), len(rows))


def head_outputs(
    model: Model, variables: Any, head: Model, head_variables: Any, images: Any, *, batch: int = 256
) -> np.ndarray:
    """What a head makes of all that the backbone gives, maps too, which are kept of `batch` rows only: float32
    [N, ...]. Arguments as those of `features`."""
    parts = _encoded(model, variables, images, np.arange(len(images)), batch, maps=True)
    head_variables = with_sentences(model, variables, head_variables)
    return _joined((head.apply(head_variables, part, train=False)[0] for part in parts), len(images))


def _joined(parts, count):
    found: Any = None
    start = 0
    for part in parts:
        found = np.empty((count, *part.shape[1:]), np.float32) if found is None else found
        found[start : start + len(part)] = part
        start += len(part)
    return found


def _encoded(model, variables, images, rows, batch, maps) -> Iterator[Any]:
    before: Any = None
    for start in range(0, len(rows), batch):
        chunk = images[rows[start : start + batch]]
        padded = np.pad(chunk, [(0, batch - len(chunk)), *[(0, 0)] * (chunk.ndim - 1)])
        encoded = _encode(variables, padded, apply=model.apply, maps=maps)
        if start:  # one batch is read while another is encoded
            yield before
        before = encoded
    yield np.asarray(before)[: len(chunk)]


@functools.partial(jax.jit, static_argnames=("apply", "maps"))
def _encode(variables, images, *, apply, maps):
    rows = to_float(images)
    outputs, _ = apply(variables, rows, train=False)
    return (outputs if maps else pooled(outputs, rows)).astype(jnp.float32)
