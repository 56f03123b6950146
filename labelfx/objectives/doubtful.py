"""Losses of labels of which some are wrong, nobody knows which: what one wrong label can do is bounded, or depends on
what the network makes of the row."""

from typing import Annotated

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Limit, NonNegative, Positive
from labelfx.objectives._rows import check_rows, mean_of_said

__all__ = [  # what a config may name
    "aldr",
    "early_learning_regularised",
    "generalised_cross_entropy",
    "ldr",
    "symmetric_cross_entropy",
]

LEAST = 1e-4  # a probability in the regulariser of early learning, as in its authors' code
STEPS = 60  # halvings of a bracket: exact in float64
Exponent = Annotated[float, Limit("a number in (0, 1]", lambda v: 0 < v <= 1)]


def generalised_cross_entropy(
    logits: jax.Array, label: jax.Array, weight: jax.Array | None = None, *, q: Exponent
) -> jax.Array:
    """GCE, (1 - p_y^q) / q, at most 1 / q: the cross-entropy as q goes to 0, half the mean absolute error at 1 (Zhang
    and Sabuncu 2018, NeurIPS, eq. 6; there q is 0.7).

    Args:
      logits: [B, C], or [B, H, W, C] of positions; of any float dtype; computed on in float32 or float64.
      label: int32 [B], or [B, H, W], from 0 to C - 1, or -1 for none.
      weight: float [B], or [B, H, W], from 0 up: times the loss; 0 leaves a row out, None is 1 for all.

    Returns:
      A scalar: the sum over rows (positions) that have a label and a weight above 0, over their number; 0 without any.

    Raises:
      ValueError: shapes differ.
    """
    log_p = _log_probability(logits, label)
    return mean_of_said(-jnp.expm1(q * log_p) / q, label >= 0, weight)


def symmetric_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    weight: jax.Array | None = None,
    *,
    alpha: NonNegative,
    beta: NonNegative,
    log_zero: Annotated[float, Limit("a number < 0", lambda v: v < 0)],
) -> jax.Array:
    """SCE, alpha cross-entropy + beta reverse cross-entropy, in which label and prediction change places and the log of
    the label's zeros is `log_zero`: -log_zero (1 - p_y) (Wang et al. 2019, ICCV, eq. 6 and 7).

    For CIFAR-10 they take alpha 0.1, beta 1; their code's `log_zero` is log 1e-4 = -9.2, the paper's -4.

    Args:
      logits, label, weight: as of `generalised_cross_entropy`.

    Returns:
      A scalar, likewise.

    Raises:
      ValueError: shapes differ.
    """
    log_p = _log_probability(logits, label)
    return mean_of_said(-alpha * log_p + beta * log_zero * jnp.expm1(log_p), label >= 0, weight)


def early_learning_regularised(
    logits: jax.Array, label: jax.Array, target: jax.Array, weight: jax.Array | None = None, *, strength: NonNegative
) -> jax.Array:
    """ELR, cross-entropy + strength log(1 - p . t): of rows that the network of before, t, was right about the gradient
    stays, and what a wrong label pulls is cancelled (Liu et al. 2020, NeurIPS, eq. 9).

    The targets are those of the rule `early_learning`: running averages of the network's probabilities. For CIFAR-10
    they take the strength 3.

    Args:
      logits, label, weight: as of `generalised_cross_entropy`.
      target: float, of the logits' shape, distributions; NaN anywhere in a row leaves its regulariser out.

    Returns:
      A scalar, likewise; p is kept 1e-4 away from 0 and 1, so that no row's regulariser is below strength log 1e-4.

    Raises:
      ValueError: shapes differ.
    """
    check_rows(logits, {"target": target}, entries=True)
    log_p = _log_probability(logits, label)
    said = ~jnp.any(jnp.isnan(target), axis=-1)
    p = jnp.clip(jax.nn.softmax(logits.astype(log_p.dtype)), LEAST, 1 - LEAST)
    product = jnp.sum(p * jnp.where(said[..., None], target, 0).astype(p.dtype), axis=-1)
    return mean_of_said(-log_p + strength * jnp.log1p(-product), label >= 0, weight)


def ldr(
    logits: jax.Array,
    label: jax.Array,
    weight: jax.Array | None = None,
    *,
    temperature: NonNegative,
    margin: NonNegative,
) -> jax.Array:
    """LDR-KL, lambda log mean_k exp(d_k / lambda) of d_k = z_k - z_y + margin [k != y] (Zhu et al. 2023, ICML, "Label
    Distributionally Robust Losses for Multi-class Classification").

    That is the worst mean of d over distributions p, less lambda KL(p || uniform). At lambda = 1 it is the
    cross-entropy less log C, towards 0 the largest margin (Crammer and Singer) and towards infinity the mean of d.

    Args:
      logits, label, weight: as of `generalised_cross_entropy`.
      temperature: lambda. 0 is the limit, max_k d_k.

    Returns:
      A scalar, likewise.

    Raises:
      ValueError: shapes differ.
    """
    margins = _margins(logits, label, margin)
    if not temperature:
        return mean_of_said(jnp.max(margins, axis=-1), label >= 0, weight)
    return mean_of_said(_soft_maximum(margins, jnp.full(label.shape, temperature, margins.dtype)), label >= 0, weight)


def aldr(
    logits: jax.Array,
    label: jax.Array,
    weight: jax.Array | None = None,
    *,
    base: Positive,
    adapt: Annotated[float, Limit("a number > 1", lambda v: v > 1)],
    margin: NonNegative,
) -> jax.Array:
    """ALDR-KL: `ldr` at the worst temperature of each row, max over lambda of it - adapt log C / (2 base) (lambda -
    base)^2 (Zhu et al. 2023).

    At the optimum lambda = base (1 - KL(p || uniform) / (adapt log C)) with p = softmax(d / lambda): rows of which the
    network is sure, of whatever class, are compared at a lower temperature, down to base (1 - 1 / adapt), others at the
    base, where the loss is more robust. The authors' code takes lambda from the p of the epoch before, without the
    margin, and divides logits by their mean size first; here it is solved for in the loss, to rounding, and by the
    envelope theorem no gradient goes through it. Where there are several optima it is one of them.

    Args:
      logits, label, weight: as of `generalised_cross_entropy`.
      base: the temperature of a row of which the network knows nothing.
      adapt: alpha; the authors run it at 2, and as it goes to infinity this is `ldr` at `base`.

    Returns:
      A scalar, likewise.

    Raises:
      ValueError: shapes differ.
    """
    margins = _margins(logits, label, margin)
    temperature = jax.lax.stop_gradient(_temperature(margins, base, adapt))
    strength = adapt * jnp.log(jnp.asarray(margins.shape[-1], margins.dtype)) / base
    losses = _soft_maximum(margins, temperature) - strength / 2 * (temperature - base) ** 2
    return mean_of_said(losses, label >= 0, weight)


def _log_probability(logits, label):
    """log softmax(z)_y, of class 0 where there is no label."""
    logits = check_rows(logits, {"label": label}, entries=False)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(label, 0)[..., None], axis=-1)[..., 0]


def _margins(logits, label, margin):
    """z_k - z_y + margin [k != y], of class 0 where there is no label."""
    logits = check_rows(logits, {"label": label}, entries=False)
    own = jax.nn.one_hot(jnp.maximum(label, 0), logits.shape[-1], dtype=logits.dtype)
    return logits - jnp.sum(own * logits, axis=-1, keepdims=True) + margin * (1 - own)


def _soft_maximum(margins, temperature):
    """lambda log mean_k exp(d_k / lambda) of margins [..., C] at temperatures [...]."""
    count = jnp.log(jnp.asarray(margins.shape[-1], margins.dtype))
    return temperature * (jax.nn.logsumexp(margins / temperature[..., None], axis=-1) - count)


def _temperature(margins, base, adapt):
    """Where lambda = base (1 - KL(softmax(d / lambda) || uniform) / (adapt log C)), between that of the largest KL and
    base, by halving the bracket."""
    count = jnp.log(jnp.asarray(margins.shape[-1], margins.dtype))

    def closer(_, bracket):
        low, high = bracket
        temperature = (low + high) / 2
        log_p = jax.nn.log_softmax(margins / temperature[..., None])
        divergence = jnp.sum(jnp.exp(log_p) * log_p, axis=-1) + count
        below = temperature < base * (1 - divergence / (adapt * count))
        return jnp.where(below, temperature, low), jnp.where(below, high, temperature)

    high = jnp.full(margins.shape[:-1], base, margins.dtype)
    return sum(jax.lax.fori_loop(0, STEPS, closer, (high * (1 - 1 / adapt), high))) / 2
