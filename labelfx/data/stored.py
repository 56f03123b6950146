"""Views that are made again instead of kept: view k of row i is a function of (seed, i, k) and of its augmentation, so
that what a network said of it is all that a file has to hold (`labelfx.reinforce`)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PROBED = 64  # rows


class Stored(NamedTuple):
    """What is stored of the views of every row.

    columns: name -> rows [N, K, ...], NumPy's or `Shards`. views: K. crops: how many of them a batch holds of each row.
    check: `(inputs) -> None`, ConfigError where these training rows have other views. made: what tells how they were
    made, and of whom; a resume asks for the same.
    """

    columns: Mapping[str, Any]
    views: int
    crops: int
    check: Callable[[Any], None] = lambda inputs: None
    made: str = ""

    def drawn(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`crops` different views of each of `count` rows, int32 [count, crops]."""
        if self.crops == 1:
            return rng.integers(0, self.views, (count, 1), np.int32)
        order = np.argpartition(rng.random((count, self.views)), self.crops - 1, axis=1)
        return order[:, : self.crops].astype(np.int32)


class Shards:
    """Rows [N, K, ...] of one field of .npy files, which hold `size` rows each, but the last; read where they lie."""

    def __init__(self, files: Sequence[Path], size: int, field: str) -> None:
        self.files, self.size, self.field = files, size, field
        self.parts = [np.load(file, mmap_mode="r")[field] for file in files]
        self.shape = (sum(map(len, self.parts)), *self.parts[0].shape[1:])
        self.dtype = self.parts[0].dtype

    def __reduce__(self) -> Any:
        """Another process opens the files itself: it is not sent what is in them."""
        return Shards, (self.files, self.size, self.field)

    def __getitem__(self, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Views [B, V] of rows [B, 1]."""
        rows, views = where
        found = np.empty((*views.shape, *self.shape[2:]), self.dtype)
        shards = rows[:, 0] // self.size
        for shard in np.unique(shards):
            here = shards == shard
            found[here] = self.parts[shard][rows[here] % self.size, views[here]]
        return found


def view_keys(seed: int, rows: jax.Array, views: jax.Array) -> jax.Array:
    """The keys of views `views` of rows `rows`, both int32 [B]."""
    root = jax.random.key(seed)
    return jax.vmap(lambda row, view: jax.random.fold_in(jax.random.fold_in(root, row), view))(rows, views)


def probe(augment: Callable[..., jax.Array], seed: int, inputs: Any) -> np.ndarray:
    """What tells whether two make the same views: of view 0 of the first `PROBED` rows, its sum under weights that no
    flip, shift or change of colour leaves alone, float32 [P]."""
    rows = np.arange(min(PROBED, len(inputs)))
    views = jax.jit(augment)(view_keys(seed, jnp.asarray(rows), jnp.zeros_like(rows)), jnp.asarray(inputs[rows]))
    flat = np.asarray(views, np.float64).reshape(len(rows), -1)
    weights = np.random.default_rng(0).standard_normal(flat.shape[1]) / flat.shape[1] ** 0.5
    return (flat @ weights).astype(np.float32)
