"""Losses of regression, and regularisers: the neighbourhoods of features follow those of the labels."""

from typing import Annotated

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Limit, NonNegative, Positive
from labelfx.objectives._rows import check_rows, mean_of_said, mean_over_rows
from labelfx.objectives.contrastive import cosine, normalise

__all__ = ["absolute_error", "conr", "one_sided_regression", "squared_error"]  # what a config may name


def squared_error(logits: jax.Array, label: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Mean squared error of predicted targets: the least squares of linear regression, of networks.

    Args:
      logits: [B, T], the predictions; of any float dtype; computed on in float32 or float64.
      label: float [B, T], or [B] where T = 1; NaN is unknown.
      weight: float [B], or [B, T], from 0 up: times the error; 0 leaves a row, or an entry, out, None is 1 for all.

    Returns:
      A scalar: the sum over known targets, over the number of rows of which one is known and has a weight above 0; 0
      without any.

    Raises:
      ValueError: shapes differ.
    """
    return _mean_error(jnp.square, logits, label, weight)


def absolute_error(logits: jax.Array, label: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Mean absolute error of predicted targets: `squared_error`, its arguments and result, with |error| for its square.

    At an error of 0 the gradient is 0.
    """
    return _mean_error(jnp.abs, logits, label, weight)


def one_sided_regression(
    logits: jax.Array,
    label: jax.Array,
    *,
    upper_share: Annotated[float, Limit("a number in (0, 1)", lambda v: 0 < v < 1)],
    scale: Positive,
) -> jax.Array:
    """Regression where an observation may be too low and is never too high (U2, "Regression with Sensor Data Containing
    Incomplete Observations"): one above the prediction f is complete, and of one below it the value does not count.

    The loss of a complete observation y is (y - f)^2 / scale above f and f - y below; this is E[f - y] + upper_share
    E[(y - f)^2 / scale - (f - y) | y >= f], whose gradient has the mean of complete observations: below f it does not
    hang on y. For normal errors of deviation s f is their mean at the scale 1.6 s. An absolute error above f would have
    the gradient 1 - 2 upper_share of an intercept, whatever is observed. The formula was put together from the abstract
    and an earlier version of the paper, not copied.

    Args:
      logits: [B, 1], the predictions; of any float dtype; computed on in float32 or float64.
      label: float [B], or [B, 1]; NaN is unknown.
      upper_share: the probability that a complete observation is above f.
      scale: in units of the label.

    Returns:
      A scalar; both means are over rows with a target, 0 without any.

    Raises:
      ValueError: shapes differ, or there are several targets a row.
    """
    label = label[:, None] if label.ndim == 1 else label
    logits = check_rows(logits, {"label": label}, entries=True)
    if logits.shape[-1] != 1:
        raise ValueError(f"logits must be [B, 1], one target a row, got {logits.shape}")
    known = ~jnp.isnan(label)
    error = logits - jnp.where(known, label, 0).astype(logits.dtype)
    trusted = known & (jax.lax.stop_gradient(error) <= 0)
    return mean_of_said(error, known) + upper_share * mean_of_said(error**2 / scale - error, trusted)


def _mean_error(of, logits, label, weight):
    label = label[:, None] if label.ndim == 1 else label
    logits = check_rows(logits, {"label": label}, entries=True)
    known = ~jnp.isnan(label)
    losses = of(logits - jnp.where(known, label, 0).astype(logits.dtype))
    return mean_over_rows(losses, known, weight)


def conr(z, targets, predictions, weights, *, window: NonNegative, temperature: Positive, distance_scale: NonNegative):
    """ConR, a contrastive regulariser for imbalanced regression (Keramati et al. 2024, ICLR).

    Positives of an anchor are the other rows whose target is within the window of its own, negatives those whose
    target is not but whose prediction is. A negative counts weight_i e^{distance_scale |y_i - y_j|} times in the
    denominator. The authors' code adds 1 to the denominator for each row that is no positive, and multiplies the
    anchor's loss by its weight once more; the paper does neither.

    Args:
        z: [B, D] features, not normalised, of any float dtype; computed on in float32 or float64.
        targets, predictions: float [B]. No gradient reaches them.
        weights: float [B], larger for anchors with rare targets; ones for none.
        window: the largest difference of similar targets.
        temperature: divides the cosine similarities; the authors' is 0.07.
        distance_scale: growth of a negative's count with the difference of the targets; the authors' is 0.01.

    Returns:
        A scalar, the mean over B anchors; those without positives or without negatives contribute 0.

    Raises:
        ValueError: if z is not [B, D], or targets, predictions or weights not [B].
    """
    if z.ndim != 2 or not targets.shape == predictions.shape == weights.shape == z.shape[:1]:
        raise ValueError(
            "z must be [B, D] and targets, predictions and weights [B], "
            f"got {z.shape}, {targets.shape}, {predictions.shape} and {weights.shape}"
        )
    z = normalise(z)
    scores = cosine(z, z) / temperature
    distance = jax.lax.stop_gradient(jnp.abs(targets[:, None] - targets[None])).astype(z.dtype)
    near = distance <= window
    is_positive = near & ~jnp.eye(len(z), dtype=bool)
    is_negative = ~near & (jnp.abs(predictions[:, None] - predictions[None]) <= window)
    # A negative of weight 0 is left out: in a row of such alone log 0 has a value, but its gradient is NaN.
    counted = is_positive | is_negative & (weights > 0)[:, None]
    log_count = jnp.log(weights.astype(z.dtype))[:, None] + distance_scale * distance
    log_sum = jax.nn.logsumexp(
        jnp.where(is_negative, scores + log_count, scores), axis=-1, where=counted, keepdims=True
    )
    positives = jnp.sum(is_positive, axis=-1, dtype=z.dtype)
    losses = jnp.sum(log_sum - scores, axis=-1, where=is_positive) / jnp.maximum(positives, 1)
    return jnp.mean(jnp.where(jnp.any(is_negative, axis=-1), losses, 0))
