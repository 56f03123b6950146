"""Features of networks that nothing trains, kept in a folder: a row goes through such a network once."""

import contextlib
import hashlib
import io
import math
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx.config import make_folder, replacing
from labelfx.data import Some
from labelfx.data.augment import to_float
from labelfx.data.npy import read_npy
from labelfx.evals import features
from labelfx.loop.metrics import telling
from labelfx.models import Model, pooled

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)
MOST = 2**22  # pixels that go through the network at once: of photographs 256 would take gigabytes
BLOCK = 4096  # rows after which what there is counts, whatever stops the process


@contextlib.contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Keeps features in `folder/features`, or in the folder of an outer `kept_in`; in a bucket they are not kept."""
    if _folder.get() is not None or not isinstance(folder, Path):
        yield
        return
    token = _folder.set(folder / "features")
    try:
        yield
    finally:
        _folder.reset(token)


def kept_features(model: Model, variables: Any, inputs: Any, rows: np.ndarray | None = None) -> np.ndarray:
    """`labelfx.evals.features`: float32 [N, F], or [len(rows), F]. Of a frozen encoder (`Model.key`) a row that is kept
    is not encoded again: by the network, its weights and all inputs it is known again."""
    rows = np.arange(len(inputs)) if rows is None else rows
    if isinstance(inputs, Some):
        return kept_features(model, variables, inputs.inputs, inputs.rows[rows])
    if not model.key:
        return features(model, variables, inputs, rows)
    return np.asarray(kept_rows(model, variables, inputs, rows)[rows])


def at_once(shape: tuple[int, ...]) -> int:
    """How many rows of this shape go through a network together."""
    pixels = math.prod(shape[:2]) if len(shape) == 3 else 1
    return min(256, max(8, MOST // pixels))


def kept_rows(model: Model, variables: Any, inputs: Any, rows: np.ndarray | None = None) -> np.ndarray:
    """Features of a frozen encoder, float32 [N, F], in which those of `rows` (int [L], by default all) are there, and
    of others that were kept; the rest is 0."""
    rows, folder = np.arange(len(inputs)) if rows is None else rows, _folder.get()
    lazy = not isinstance(inputs, np.ndarray)
    batch = at_once(inputs.shape[1:])
    row = jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)
    shape = len(inputs), jax.eval_shape(lambda x: _one(model, variables, x), row).shape[-1]
    if folder is None or (lazy and not hasattr(inputs, "which")):
        found = np.zeros(shape, np.float32)
        found[rows] = features(model, variables, inputs, rows, batch=batch)
        return found
    name = _name(model, variables, inputs)
    path, there = folder / f"{name}.npy", folder / f"{name}.rows.npy"
    make_folder(folder)
    try:
        have = read_npy(there, "b", 1).copy()
        kept = np.lib.format.open_memmap(path, "r+")
        if have.shape != shape[:1] or kept.shape != shape or kept.dtype != np.float32:
            raise ValueError
    except (OSError, ValueError):  # not there, or not whole
        have = np.zeros(len(inputs), bool)
        kept = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    missing = np.unique(rows[~have[rows]])
    with telling(f"encoding {len(missing):,} rows"):
        for start in range(0, len(missing), BLOCK):
            some = missing[start : start + BLOCK]
            kept[some] = features(model, variables, inputs, some, batch=batch)
            kept.flush()
            have[some] = True
            stream = io.BytesIO()
            np.save(stream, have)
            with replacing(there) as file:
                file.write(stream.getvalue())
    return np.lib.format.open_memmap(path, "r")


def _one(model, variables, images):
    x = to_float(images[:1])
    return pooled(model.apply(variables, x, train=False)[0], x)


def _name(model: Model, variables: Any, inputs: Any) -> str:
    digest = hashlib.sha256(f"{model.key} {inputs.shape} {inputs.dtype}".encode())
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    digest.update(inputs.tobytes() if isinstance(inputs, np.ndarray) else inputs.which.encode())
    return digest.hexdigest()[:16]
