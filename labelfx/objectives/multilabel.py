"""Losses of rows with several labels: each class is a binary decision of its own.

All are the mean over rows of the sum over classes. Public code differs by a factor: ASL's is the sum over the batch, B
times as much; that of single positive labels the mean over entries, 1 / C of it.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config.annotations import Fraction, NonNegative
from labelfx.objectives._rows import check_rows, choose, leading, mean_over_rows

__all__ = ["asymmetric", "binary_cross_entropy", "multi_focal"]  # what a config may name

Unknown = Literal["ignore", "negative"]


def binary_cross_entropy(
    logits: jax.Array, label: jax.Array, weight: jax.Array | None = None, *, unknown: Unknown
) -> jax.Array:
    """Binary cross-entropy of every class; with unknown="negative" the baseline "assume negative" (Cole et al. 2021).

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      label: int8 [B, C]: 1, 0, or -1 for unknown.
      weight: float [B] or [B, C], from 0 up: times the loss; 0 leaves a row, or an entry, out, None is 1 for all.
      unknown: whether unknown entries count for nothing, or as negative ones in rows of which any entry is known.

    Returns:
      A scalar: the sum over entries, over the number of rows of which one is known and has a weight above 0; 0 without
      any.

    Raises:
      ValueError: shapes differ, or unknown is none of those above.
    """
    logits, positive, said = _entries(logits, label, unknown)
    return mean_over_rows(jax.nn.softplus(logits) - positive * logits, said, weight)


def asymmetric(
    logits: jax.Array,
    label: jax.Array,
    *,
    gamma_positive: NonNegative,
    gamma_negative: NonNegative,
    clip: Fraction,
    focal_gradient: bool,
    unknown: Unknown,
) -> jax.Array:
    """ASL: focal weights for positive and for negative entries, easy negatives dropped (Ridnik et al. 2021, ICCV).

    With p = sigmoid(z) and p_m = max(p - clip, 0) (equation 5) a positive entry's loss is -(1 - p)^gamma_positive log p
    and a negative one's -p_m^gamma_negative log(1 - p_m) (equation 7). A negative with p below the clip has neither
    loss nor gradient. With both gammas and the clip 0 it is `binary_cross_entropy`. The authors train with
    gamma_negative 4, gamma_positive 0 and clip 0.05.

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      label: int8 [B, C]: 1, 0, or -1 for unknown.
      focal_gradient: whether gradients flow through the focal weights, as in the paper; the authors' training asks for
        none.
      unknown: as in `binary_cross_entropy`.

    Returns:
      A scalar: the sum over entries, over the number of rows of which one is known; 0 without any.

    Raises:
      ValueError: shapes differ, or unknown is none of those above.
    """
    logits, positive, said = _entries(logits, label, unknown)
    return mean_over_rows(_focal(logits, positive, gamma_positive, gamma_negative, clip, focal_gradient), said)


def multi_focal(
    logits: jax.Array,
    label: jax.Array,
    weight: jax.Array,
    *,
    gamma_positive: NonNegative,
    gamma_negative: NonNegative,
    clip: Fraction,
    margin: NonNegative,
    focal_gradient: bool,
    unknown: Unknown,
) -> jax.Array:
    """COMIC's loss for a long tail of labels: `asymmetric` whose classes differ (Zhang et al. 2023, ICCV).

    An entry's weight w is that of its class, from 1 for the most frequent one up (`labels.rules.reflective` gives it).
    It multiplies the loss and adds to gamma_negative: easy negatives of rare labels fade sooner. Logits of positive
    entries are lowered by `margin` first. With weights of 1 and margin 0 it is `asymmetric` with gamma_negative + 1.
    The authors' code trains with gamma_negative 3, gamma_positive 0, clip 0.05 and margin 1, without focal gradients,
    and divides the sum over entries by the number of positive ones instead of that of rows.

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      label: int8 [B, C]: 1, 0, or -1 for unknown.
      weight: float [B] or [B, C], from 0 up; 0 leaves a row, or an entry, out.
      focal_gradient, unknown: as in `asymmetric`.

    Returns:
      A scalar: the sum over entries, over the number of rows of which one is known and has a weight above 0; 0 without
      any.

    Raises:
      ValueError: shapes differ, or unknown is none of those above.
    """
    logits, positive, said = _entries(logits, label, unknown)
    gamma = gamma_negative + leading(weight, logits)
    losses = _focal(logits - margin * positive, positive, gamma_positive, gamma, clip, focal_gradient)
    return mean_over_rows(losses, said, weight)


def _focal(logits, positive, gamma_positive, gamma_negative, clip, focal_gradient):
    """The loss of each entry [B, C]; gamma_negative is a number, or one of each entry."""
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    shifted = jax.nn.sigmoid(logits) - clip
    kept = shifted > 0
    # Not where it is clipped: the gradient of 0^gamma may be infinite, and infinity times 0 is not 0.
    shifted = jnp.where(kept, shifted, 1)
    log_rest = jnp.logaddexp(log_not_p, jnp.asarray(np.log(clip), logits.dtype)) if clip else log_not_p
    focus, negative_focus = jnp.exp(gamma_positive * log_not_p), shifted**gamma_negative
    if not focal_gradient:
        focus, negative_focus = jax.lax.stop_gradient((focus, negative_focus))
    negative = jnp.where(kept, negative_focus * log_rest, 0)
    return -(positive * focus * log_p + (1 - positive) * negative)


def _entries(logits, label, unknown):
    """Logits, 1 where the label is positive, else 0, and which entries count: [B, C] each."""
    logits = check_rows(logits, {"label": label}, entries=True)
    known = label >= 0
    counts = {"ignore": known, "negative": jnp.broadcast_to(jnp.any(known, axis=-1, keepdims=True), label.shape)}
    return logits, (label > 0).astype(logits.dtype), choose("unknown", unknown, counts)
