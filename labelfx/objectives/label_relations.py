"""Losses of rows with several labels that look at how labels go together."""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import NonNegative, Positive
from labelfx.objectives._rows import check_rows, mean_over_rows
from labelfx.objectives.contrastive import at_least_float32, sup_con_mask

__all__ = ["hybrid"]  # what a config may name


def hybrid(
    logits: jax.Array,
    label: jax.Array,
    features: jax.Array,
    weight: jax.Array | None = None,
    *,
    correlation: NonNegative,
    contrast: NonNegative,
    temperature: Positive,
) -> jax.Array:
    """Weighted binary cross-entropy, a penalty on label correlations and a contrast of features: the three
    parts of "Improving Arabic Multi-Label Emotion Classification using Stacked Embeddings and Hybrid Loss Function".

    The penalty is the mean over pairs of classes of (corr(p_c, p_d) - corr(y_c, y_d))^2, p of all rows of the batch, y
    of those in which both labels are known; a pair of which either is constant is left out. The contrast is
    `sup_con_mask` on the features, each pair of rows weighted by the Jaccard index of their known positive labels. The
    paper's own forms of the two terms were not at hand.

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      label: int8 [B, C]: 1, 0, or -1 for unknown.
      features: float [B, F], of the backbone.
      weight: float [B] or [B, C], from 0 up, for the cross-entropy: of classes, where a rule gives such
        (`labels.rules.reflective`); None is 1 for all.
      correlation, contrast: the factors of the two terms; temperature: of the contrast.

    Returns:
      A scalar: the sum of the three, each of which is 0 where nothing is said for it.

    Raises:
      ValueError: shapes differ.
    """
    logits = check_rows(logits, {"label": label}, entries=True)
    dtype = logits.dtype
    known, positive = label >= 0, (label > 0).astype(dtype)
    binary = mean_over_rows(jax.nn.softplus(logits) - positive * logits, known, weight)
    predicted, defined = _correlations(jax.nn.sigmoid(logits), jnp.ones(label.shape, dtype))
    given, also = _correlations(positive, known.astype(dtype))
    pairs = defined & also & ~jnp.eye(label.shape[1], dtype=bool)
    penalty = jnp.sum((predicted - given) ** 2, where=pairs) / jnp.maximum(jnp.sum(pairs, dtype=dtype), 1)
    both = _product(positive, positive.T)
    number = jnp.sum(positive, axis=1)
    jaccard = both / jnp.maximum(number[:, None] + number[None] - both, 1)
    z = at_least_float32(features)[:, None]
    closeness = sup_con_mask(z, jaccard.astype(z.dtype), temperature=temperature, base_temperature=temperature)
    return binary + correlation * penalty + contrast * closeness.astype(dtype)


def _correlations(x, known):
    """Pearson's of each pair of columns of x [B, C], over the rows in which both are known: [C, C], 0 where either is
    constant there, and where neither is."""
    count = jnp.maximum(_product(known.T, known), 1)
    x = known * (x - jnp.sum(known * x, axis=0, keepdims=True) / jnp.maximum(jnp.sum(known, axis=0, keepdims=True), 1))
    mean = _product(x.T, known) / count  # of a column, over the rows in which the other is known
    variance = _product((x**2).T, known) / count - mean**2
    covariance = _product(x.T, x) / count - mean * mean.T
    product = variance * variance.T
    defined = jnp.minimum(variance, variance.T) > 1e-7
    return jnp.where(defined, covariance / jnp.sqrt(jnp.where(defined, product, 1)), 0), defined


def _product(left, right):
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
