"""Losses of rows with several labels of which only some positive ones are said: what is not said is not negative."""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import NonNegative, Positive
from labelfx.objectives._rows import check_rows, mean_over_rows

__all__ = ["entropy_maximisation", "variational_pu"]  # what a config may name


def entropy_maximisation(logits: jax.Array, target: jax.Array, *, alpha: NonNegative, beta: NonNegative) -> jax.Array:
    """Entropy maximisation of what is unknown, with soft negatives (EM and APL; Zhou et al. 2022, ECCV).

    With p = sigmoid(z) an entry of target 1 has the loss -log p; an unknown one -alpha times the entropy of p, whose
    gradient in the logit is alpha p (1 - p) z: towards p = 1/2 and never past it, and small where p is sure. An entry
    of a target q below 1 is a pseudo-negative, with beta times the cross-entropy of q and p. The rule
    `labels.rules.asymmetric` gives such targets. The authors' code takes log(p + 1e-5), and the mean over entries:
    1 / C of this.

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      target: float [B, C], in [0, 1]; NaN where nothing is known.

    Returns:
      A scalar: the sum over entries of rows of which any is known, over the number of these rows; 0 without any.

    Raises:
      ValueError: shapes differ.
    """
    logits = check_rows(logits, {"target": target}, entries=True)
    known = ~jnp.isnan(target)
    q = jnp.where(known, target, 0).astype(logits.dtype)
    cross_entropy = jax.nn.softplus(logits) - q * logits
    entropy = jax.nn.softplus(logits) - jax.nn.sigmoid(logits) * logits
    losses = jnp.where(known, jnp.where(q < 1, beta, 1) * cross_entropy, -alpha * entropy)
    return mean_over_rows(losses, jnp.broadcast_to(jnp.any(known, axis=-1, keepdims=True), known.shape))


def variational_pu(logits: jax.Array, label: jax.Array, *, alpha: Positive, gamma: NonNegative) -> jax.Array:
    """PU-MLC: every label is learnt from positive and unlabelled rows alone (Yuan et al. 2023, on Chen et al. 2020's
    variational risk, NeurIPS).

    With Phi = sigmoid(z / tau) the loss of a class is r log mean(Phi) - mean(log Phi), the first mean over all rows of
    the batch, the second over its positive ones: negative labels are not used. tau = min(alpha std(z), 1) sharpens
    what is too smooth (1 where all z of a class are alike), r = mean(Phi)^gamma balances rare labels; both are of the
    class in this batch, and have no gradient.
    The authors take alpha 1 and gamma 0.55 on COCO, 2 and 0.85 on VOC. With gamma 0 the loss does not change where
    Phi is scaled, so it finds P(y | x) up to a factor; gamma above 0 fixes the factor, and ranks well, but Phi is then
    no calibrated probability. Their consistency of mixed images and their convolution are not part of it.

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      label: int8 [B, C]: 1; 0 and -1 alike are unlabelled.

    Returns:
      A scalar, the sum over classes; a class without a positive has the first term alone. It may be negative.

    Raises:
      ValueError: shapes differ.
    """
    logits = check_rows(logits, {"label": label}, entries=True)
    positive = (label > 0).astype(logits.dtype)
    spread = alpha * jnp.std(jax.lax.stop_gradient(logits), axis=0, keepdims=True)
    log_phi = jax.nn.log_sigmoid(logits / jnp.where(spread > 1e-6, jnp.minimum(spread, 1), 1))
    log_mean = jax.nn.logsumexp(log_phi, axis=0) - jnp.log(jnp.array(len(logits), logits.dtype))
    balance = jnp.exp(gamma * jax.lax.stop_gradient(log_mean))
    of_positives = jnp.sum(positive * log_phi, axis=0) / jnp.maximum(jnp.sum(positive, axis=0), 1)
    return jnp.sum(balance * log_mean - of_positives)
