"""Pseudo-labels of two networks, a client's own and the server's (FedLabel, Cho, Joshi & Dimitriadis 2023, ICCV)."""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Probability
from labelfx.objectives._rows import check_rows


def more_confident(
    local_probs: jax.Array, global_probs: jax.Array, *, threshold: Probability
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each row the class of whichever network has the larger probability; the local one's where they tie.

    Args:
      local_probs, global_probs: float [B, C]; computed on in float32, or in float64.
      threshold: least probability of a pseudo-label that counts (>=).

    Returns:
      Targets [B, C], one-hot; bool [B], which of them count; bool [B], which are the local network's.

    Raises:
      ValueError: shapes differ.
    """
    local_probs = check_rows(local_probs, {"global_probs": global_probs}, entries=True)
    global_probs = global_probs.astype(local_probs.dtype)
    own, other = (jnp.max(probs, axis=-1) for probs in (local_probs, global_probs))
    local = own >= other
    label = jnp.argmax(jnp.where(local[:, None], local_probs, global_probs), axis=-1)
    target = jax.nn.one_hot(label, local_probs.shape[-1], dtype=local_probs.dtype)
    return target, jnp.maximum(own, other) >= threshold, local
