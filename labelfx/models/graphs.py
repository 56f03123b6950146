"""Networks on the nodes of a graph, which lies among their variables, in the collection `graph`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from labelfx.graphs import Graph

LARGEST = 256 * 2**20  # bytes: each checkpoint and each averaged network has a copy


def check_size(graph: Graph) -> None:
    """ValueError where the graph has no edge, or is too large to lie in every checkpoint."""
    if not len(graph.edges):
        raise ValueError("the graph has no edge; without one take mlp on the nodes' features")
    size = graph.features.nbytes + graph.edges.nbytes
    if size > LARGEST:
        raise ValueError(f"the graph takes {size / 2**20:.0f} MB, of which every checkpoint has a copy; at most 256")


class Gcn(nn.Module):
    """Convolutions over the graph `graph`, of which only the shapes matter where its variables are loaded."""

    graph: Any
    hidden: tuple[int, ...]
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, nodes, train):
        features, edges = (
            self.variable("graph", name, jnp.asarray, getattr(self.graph, name)).value for name in ("features", "edges")
        )
        x = features.astype(jnp.float32)
        x = (x / jnp.maximum(jnp.sum(x, -1, keepdims=True), 1)).astype(self.dtype or jnp.float32)
        for size in self.hidden:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.relu(propagate(nn.Dense(size, dtype=self.dtype)(x), edges))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return propagate(x, edges)[nodes[:, 0]].astype(jnp.float32)


def propagate(x: jax.Array, edges: jax.Array) -> jax.Array:
    """D^-1/2 (A + I) D^-1/2 x, with the degrees D of A + I (Kipf and Welling 2017, equation 2).

    Args:
      x: float [N, F].
      edges: int32 [E, 2], (sender, receiver), each edge of A both ways.
    """
    sender, receiver = edges[:, 0], edges[:, 1]
    degree = 1 + jax.ops.segment_sum(jnp.ones(len(edges), x.dtype), receiver, len(x))
    scale = jax.lax.rsqrt(degree)[:, None]
    x = x * scale
    return scale * (x + jax.ops.segment_sum(x[sender], receiver, len(x)))
