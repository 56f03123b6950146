"""Losses of classifiers."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Fraction
from labelfx.objectives.contrastive import at_least_float32


def cross_entropy(logits: jax.Array, label: jax.Array, *, label_smoothing: Fraction) -> jax.Array:
    """Mean cross-entropy; the target mixes the label with the uniform distribution (Szegedy et al. 2016, section 7).

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      label: int32 [B], from 0 to C - 1.
      label_smoothing: weight of the uniform distribution.
    """
    logits = at_least_float32(logits)
    target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    return jnp.mean(optax.softmax_cross_entropy(logits, target))
