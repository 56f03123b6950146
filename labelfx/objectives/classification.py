"""Losses of classifiers."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Fraction, NonNegative, NonNegativeInt
from labelfx.objectives._rows import check_rows, mean_of_said
from labelfx.objectives.contrastive import at_least_float32


def cross_entropy(
    logits: jax.Array, label: jax.Array, weight: jax.Array | None = None, *, label_smoothing: Fraction
) -> jax.Array:
    """Mean cross-entropy; the target mixes the label with the uniform distribution (Szegedy et al. 2016, section 7).

    Args:
      logits: [B, C], or [B, H, W, C] of positions; of any float dtype; computed on in float32 or float64.
      label: int32 [B], or [B, H, W], from 0 to C - 1, or -1: unknown, or void.
      weight: float [B], or [B, H, W], from 0 up: times the loss; 0 leaves a row out, None is 1 for all.
      label_smoothing: weight of the uniform distribution.

    Returns:
      A scalar: the sum over rows (positions) that have a label and a weight above 0, over their number; 0 without any.

    Raises:
      ValueError: shapes differ, or labels are no classes.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    if not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(f"label must be classes, integers, got {label.dtype}")
    target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype), label_smoothing)
    return mean_of_said(optax.softmax_cross_entropy(logits, target), label >= 0, weight)


def margin_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    weight: jax.Array | None = None,
    *,
    margin: NonNegative,
    classes: tuple[NonNegativeInt, ...],
) -> jax.Array:
    """`cross_entropy` with `margin` added to the logits of `classes`, in training alone: so that the other classes win
    by that much more afterwards (margin-calibrated loss, Ricci et al. 2026, AAAI, "Mitigating Negative Flips via Margin
    Preserving Training", whose code adds 4 to new classes of CIFAR-100).

    Args:
      logits, label, weight: as of `cross_entropy`.
      margin: b, in units of logits.
      classes: those that are new since the last network.

    Returns:
      A scalar, as `cross_entropy`.

    Raises:
      ValueError: shapes differ, labels are no classes, or `classes` are none of the logits'.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    if not all(each < logits.shape[-1] for each in classes):
        raise ValueError(f"classes = {classes}: must be classes 0..{logits.shape[-1] - 1}")
    raised = logits.at[..., jnp.array(classes, jnp.int32)].add(margin)
    return cross_entropy(raised, label, weight, label_smoothing=0.0)


def rank_mixup(
    logits: jax.Array,
    label: jax.Array,
    mixed_logits: jax.Array,
    partner: jax.Array,
    *,
    margin: NonNegative,
    on: Literal["logits", "probabilities"],
    share: NonNegative,
) -> jax.Array:
    """RankMixup: cross-entropy of the rows as they are, and `share` times the `mixup_ranking` against the same rows
    mixed with others (Noh et al. 2023, ICCV, eq. 8; margins and shares there are 0.1 to 2, and 0.1).

    Args:
      logits, mixed_logits: [B, C] of rows and of the same rows mixed; of any float dtype; computed on in float32 or
        float64.
      label: int32 [B], from 0 to C - 1, or -1 for none, whose rows are left out of both terms.
      partner: int [B], which row each is mixed with.

    Returns:
      A scalar; 0 where no row has a label.

    Raises:
      ValueError: shapes differ.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    said = label >= 0
    ranked = mixup_ranking(logits, mixed_logits, said & (label != label[partner]), margin=margin, on=on)
    ranked *= len(label) / jnp.maximum(jnp.sum(said, dtype=ranked.dtype), 1)
    return cross_entropy(logits, label, label_smoothing=0.0) + share * ranked


def mixup_ranking(
    raw_logits: jax.Array,
    mixed_logits: jax.Array,
    mixed: jax.Array,
    *,
    margin: float,
    on: Literal["logits", "probabilities"],
) -> jax.Array:
    """Mixup-based ranking loss: a mixed row is to be less sure than the row, by `margin` (Noh et al. 2023, eq. 6).

    The mean over all rows of max(0, max_c z'_c - max_c z_c + margin), 0 where a row is not `mixed` with another class;
    z are logits, as in the authors' code, or probabilities, as in the paper's words.

    Args:
      raw_logits, mixed_logits: [B, C]. mixed: bool [B].

    Raises:
      ValueError: `on` is neither.
    """
    of = {"logits": lambda z: z, "probabilities": jax.nn.softmax}
    if on not in of:
        raise ValueError(f"on must be one of {', '.join(of)}, got {on!r}")
    raw, other = (jnp.max(of[on](at_least_float32(z)), axis=-1) for z in (raw_logits, mixed_logits))
    return jnp.mean(jnp.where(mixed, jnp.maximum(other - raw + jnp.asarray(margin, raw.dtype), 0), 0))


def vote_cross_entropy(logits: jax.Array, votes: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Mean cross-entropy to the shares of a row's votes, the mean of their one-hot vectors: of annotators, or of
    several networks in self-training on their agreement (Zhang, Mai et al. 2025, arXiv 2503.09707).

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      votes: int [B, M], the class that each of M named, from 0 to C - 1, or -1: abstains.
      weight: float [B], from 0 up: times the loss; 0 leaves a row out, None is 1 for all.

    Returns:
      A scalar: the sum over rows that have a vote and a weight above 0, over their number; 0 without any.

    Raises:
      ValueError: shapes differ.
    """
    if votes.ndim != 2 or logits.shape[:-1] != votes.shape[:1]:
        raise ValueError(f"logits must be [B, C] and votes [B, M], got {logits.shape}, {votes.shape}")
    logits = check_rows(logits, {}, entries=False)
    count = jnp.sum(votes >= 0, axis=1)
    shares = jnp.sum(jax.nn.one_hot(votes, logits.shape[-1], dtype=logits.dtype), axis=1)
    shares /= jnp.maximum(count, 1).astype(logits.dtype)[:, None]
    return mean_of_said(optax.softmax_cross_entropy(logits, shares), count > 0, weight)


def soft_cross_entropy(logits: jax.Array, target: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Mean cross-entropy to distributions: given ones, such as the shares of annotators, or inferred.

    Args:
      logits: [B, C], or [B, H, W, C] of positions; of any float dtype; computed on in float32 or float64.
      target: float, of the same shape, used as it is; NaN anywhere in a row says nothing of it.
      weight: float [B], or [B, H, W], from 0 up: times the loss; 0 leaves a row out, None is 1 for all.

    Returns:
      A scalar: the sum over rows (positions) that have a target and a weight above 0, over their number; 0 without any.

    Raises:
      ValueError: shapes differ.
    """
    logits = check_rows(logits, {"target": target}, entries=True)
    said = ~jnp.any(jnp.isnan(target), axis=-1)
    target = jnp.where(said[..., None], target, 0).astype(logits.dtype)
    return mean_of_said(optax.softmax_cross_entropy(logits, target), said, weight)
