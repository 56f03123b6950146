"""Consistency with pseudo-labels: a weak view of an unlabelled image sets the target of its strong view.

The losses are means over all rows of the batch, also those of weight 0. FlexMatch and FreeMatch are `fixmatch` with a
threshold for each class, SoftMatch is `masked_consistency` with soft weights; what they adapt is a state that goes in
and comes out. No gradient flows through the weak view, thresholds, weights or states. Confidence is the largest
probability of a row, the pseudo-label its class. Inputs of any float dtype are computed on, and the losses returned, in
float32, or in float64 if they are float64; a state has the dtype of the probabilities.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Fraction, Positive, Probability
from labelfx.objectives._rows import choose
from labelfx.objectives.contrastive import at_least_float32

__all__ = ["fixmatch", "uda"]  # what a config may name


def fixmatch(weak_logits, strong_logits, *, threshold: Probability):
    """Hard pseudo-labels where the weak view is confident (FixMatch, Sohn et al. 2020, NeurIPS, eq. 4).

    Args:
        weak_logits, strong_logits: float [B, C], of the two views.
        threshold: least confidence of a row that counts (>=); a scalar, or [C] for each pseudo-label.

    Returns:
        A scalar, the mean over all B rows of the cross-entropy, 0 for rows below the threshold.

    Raises:
        ValueError: if the logits are not of one shape [B, C].
    """
    weak_probs = jax.nn.softmax(_constant(weak_logits))
    label = jax.nn.one_hot(jnp.argmax(weak_probs, axis=-1), weak_probs.shape[-1], dtype=weak_probs.dtype)
    return masked_consistency(confident(weak_probs, threshold), label, strong_logits)


def uda(
    weak_logits,
    strong_logits,
    *,
    temperature: Positive,
    threshold: Probability,
    mask_on: Literal["raw", "sharpened"],
    strict: bool,
    divergence: Literal["kl", "ce"],
):
    """Sharpened soft pseudo-labels where the weak view is confident (UDA, Xie et al. 2020, NeurIPS).

    UDA's code: temperature 0.4, threshold 0.8, "raw", strict, "kl". That of Meta Pseudo Labels (Pham et al. 2021):
    temperature 0.7, threshold 0.6, "sharpened", not strict, "ce". The gradients of "kl" and "ce" are equal.

    Args:
        weak_logits, strong_logits: float [B, C], of the two views.
        temperature: divides the weak logits of the target.
        threshold: confidence of a row that counts.
        mask_on: whether the confidence is that of the weak view at temperature 1 or that of the target.
        strict: whether a confidence equal to the threshold is too low.
        divergence: KL divergence or cross-entropy from the target to the strong view.

    Returns:
        A scalar, the mean over all B rows, 0 for rows below the threshold.

    Raises:
        ValueError: if the logits are not of one shape [B, C], or mask_on or divergence is none of those above.
    """
    raw, strong = _constant(weak_logits), at_least_float32(strong_logits)
    _check_shapes(raw, strong)
    target = raw / temperature
    confidence = jnp.max(jax.nn.softmax(choose("mask_on", mask_on, {"raw": raw, "sharpened": target})), axis=-1)
    kept = confidence > threshold if strict else confidence >= threshold
    kl = optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(strong), jax.nn.log_softmax(target))
    ce = optax.losses.softmax_cross_entropy(strong, jax.nn.softmax(target))
    return _weighted_mean(kept, choose("divergence", divergence, {"kl": kl, "ce": ce}))


def masked_consistency(weights, targets, strong_logits):
    """The mean over all B rows of weights [B] (bool or float) times KL divergence from targets [B, C] (probabilities).

    Where a target is hard, that is the cross-entropy.

    Raises:
        ValueError: if targets and logits are not of one shape [B, C].
    """
    targets, strong = _constant(targets), at_least_float32(strong_logits)
    _check_shapes(targets, strong)
    return _weighted_mean(weights, optax.losses.kl_divergence(jax.nn.log_softmax(strong), targets))


def confident(weak_probs, threshold):
    """Which rows of weak_probs [B, C] reach the threshold, a scalar or that of their pseudo-label in [C]: bool [B]."""
    label = jnp.argmax(weak_probs, axis=-1)
    return jnp.max(weak_probs, axis=-1) >= jnp.broadcast_to(threshold, weak_probs.shape[-1:])[label]


def tsa(logits, labels, *, threshold):
    """Training signal annealing of the labelled loss (UDA, Xie et al. 2020, NeurIPS, appendix).

    Args:
        logits: float [B, C].
        labels: int [B], from 0 to C - 1, or -1: unknown, or void.
        threshold: a row whose label has a probability above it does not count; see `tsa_threshold`.

    Returns:
        A scalar, the cross-entropy's mean over the rows that count; 0 without any.
    """
    logits = at_least_float32(logits)
    probs = jnp.take_along_axis(jax.nn.softmax(_constant(logits)), labels[:, None], axis=-1)[:, 0]
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    kept = (probs <= threshold) & (labels >= 0)
    return jnp.sum(losses, where=kept) / jnp.maximum(jnp.sum(kept, dtype=losses.dtype), 1)


def tsa_threshold(progress, num_classes, schedule: Literal["linear", "log", "exp"]):
    """The threshold of `tsa`, eta = alpha (1 - 1 / K) + 1 / K (UDA, Xie et al. 2020, NeurIPS, appendix).

    Args:
        progress: share of the training steps that is done, from 0 to 1.
        num_classes: K.
        schedule: alpha is progress, 1 - exp(-5 progress) or exp(5 (progress - 1)).

    Raises:
        ValueError: if the schedule is none of those.
    """
    alpha = {"linear": progress, "log": 1 - jnp.exp(-5 * progress), "exp": jnp.exp(5 * (progress - 1))}
    return choose("schedule", schedule, alpha) * (1 - 1 / num_classes) + 1 / num_classes


def flexmatch_thresholds(weak_probs, index, selected, *, threshold: Probability, warmup: bool):
    """Curriculum pseudo labeling: classes with few confident rows get a lower threshold (FlexMatch, Zhang et al. 2021,
    NeurIPS, Algorithm 1, with the convex mapping).

    As in the algorithm, the thresholds are those of before the batch; as in the authors' code, a confidence equal to
    the threshold is enough. That code also keeps the old thresholds while all rows have one class; the paper does not.

    Args:
        weak_probs: float [B, C].
        index: int [B], the rows of `selected` that the batch holds.
        selected: int [N], the last confident pseudo-label of every unlabelled row, -1 for none; -1 at first.
        threshold: that of the class with the most rows.
        warmup: whether rows without a pseudo-label, while more than those of any class, keep all thresholds low.

    Returns:
        Thresholds [C] for `fixmatch`, and `selected` with the batch.
    """
    weak_probs = _constant(weak_probs)
    counts = jnp.bincount(selected + 1, length=weak_probs.shape[-1] + 1).astype(weak_probs.dtype)
    beta = counts[1:] / jnp.maximum(jnp.max(counts if warmup else counts[1:]), 1)
    # An index outside drops the row, so that an unconfident view never undoes a confident one of the same image.
    rows = jnp.where(confident(weak_probs, threshold), index, len(selected))
    label = jnp.argmax(weak_probs, axis=-1).astype(selected.dtype)
    return threshold * beta / (2 - beta), selected.at[rows].set(label, mode="drop")


class FreeMatchState(NamedTuple):
    """Moving averages over the weak view; each starts at 1 / C (the paper; a later benchmark of the authors at 1).

    Attributes:
        confidence: scalar, the mean confidence, which is the global threshold.
        probs: [C], the mean probabilities.
        histogram: [C], the shares of the pseudo-labels.
    """

    confidence: jax.Array
    probs: jax.Array
    histogram: jax.Array


def freematch_init(num_classes):
    """The state before the first batch."""
    return FreeMatchState(*(jnp.full(shape, 1 / num_classes, jnp.float32) for shape in ((), num_classes, num_classes)))


def freematch_thresholds(weak_probs, state, *, momentum: Fraction):
    """Self-adaptive thresholds (FreeMatch, Wang et al. 2023, ICLR, eq. 5-7); the authors' momentum is 0.999.

    Args:
        weak_probs: float [B, C].
        state: a `FreeMatchState`.
        momentum: of its moving averages.

    Returns:
        Thresholds [C] for `fixmatch`, not clipped, and the state; both with this batch.
    """
    weak_probs = _constant(weak_probs)
    histogram = jnp.bincount(jnp.argmax(weak_probs, axis=-1), length=weak_probs.shape[-1]).astype(weak_probs.dtype)
    mean = FreeMatchState(jnp.mean(jnp.max(weak_probs, -1)), jnp.mean(weak_probs, 0), histogram / len(weak_probs))
    state = _moving_average(state, mean, momentum)
    return state.confidence * state.probs / jnp.max(state.probs), state


def freematch_fairness(strong_logits, kept, state):
    """Self-adaptive fairness (FreeMatch, Wang et al. 2023, ICLR): to be added with a weight such as 0.01.

    Minus the cross-entropy from the averages of the weak view to the batch's strong view, both as probabilities over
    the histogram of their own largest, normalised to sum 1. A class that no kept row has largest has probability 0
    there, and its logarithm is that of 1e-12 as in the authors' code.

    Args:
        strong_logits: float [B, C].
        kept: bool [B], the rows that count in the loss.
        state: a `FreeMatchState`, with this batch.

    Returns:
        A scalar; 0 if no row counts.
    """
    probs = jax.nn.softmax(at_least_float32(strong_logits))
    weights = kept.astype(probs.dtype)[:, None]
    largest = jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1], dtype=probs.dtype)
    batch = _over_histogram(jnp.sum(weights * probs, axis=0), jnp.sum(weights * largest, axis=0))
    target = _constant(_over_histogram(state.probs, state.histogram))
    return jnp.where(jnp.any(kept), jnp.sum(target * jnp.log(batch + 1e-12)), 0)


class SoftMatchState(NamedTuple):
    """Moving averages of the confidence's mean, at first 1 / C, and of its sample variance, at first 1; scalars."""

    mean: jax.Array
    variance: jax.Array


def softmatch_init(num_classes):
    """The state before the first batch."""
    return SoftMatchState(jnp.full((), 1 / num_classes, jnp.float32), jnp.ones((), jnp.float32))


def softmatch_weights(weak_probs, state, *, momentum: Fraction, n_sigma: Positive):
    """Truncated Gaussian weights over the confidence (SoftMatch, Chen et al. 2023, ICLR).

    The mean and variance are over all classes together. The authors' momentum is 0.999.

    Args:
        weak_probs: float [B, C], which SoftMatch aligns first: `align_distribution` with a uniform target. Its
            pseudo-labels are those of the weak view before that.
        state: a `SoftMatchState`.
        momentum: of its moving averages.
        n_sigma: the Gaussian's standard deviation is that of the confidence over n_sigma; the authors' code has 2.

    Returns:
        Weights [B] for `masked_consistency`, 1 where the confidence is at least the mean, and the state; both with
        this batch.
    """
    confidence = jnp.max(_constant(weak_probs), axis=-1)
    mean = jnp.mean(confidence)
    variance = jnp.sum((confidence - mean) ** 2) / max(1, len(confidence) - 1)
    state = _moving_average(state, SoftMatchState(mean, variance), momentum)
    below = jnp.minimum(confidence - state.mean, 0)
    variance = jnp.maximum(state.variance, jnp.finfo(confidence.dtype).tiny)
    return jnp.exp(-(below**2) * n_sigma**2 / (2 * variance)), state


def align_distribution(weak_probs, target, average, *, momentum: Fraction):
    """Distribution alignment: probabilities * target / average (ReMixMatch, Berthelot et al. 2020, ICLR, section 3.1).

    ReMixMatch averages over the last 128 batches and aligns with the average of before the batch. This is the moving
    average of FlexMatch's and SoftMatch's code, momentum 0.999, with the batch; 1e-6 is added to both distributions.

    Args:
        weak_probs: float [B, C].
        target: [C], the distribution of the classes.
        average: [C], the moving average of weak_probs; at first uniform, or the first batch's mean as in that code.
        momentum: of the moving average.

    Returns:
        Probabilities [B, C], and the average with this batch.
    """
    weak_probs = _constant(weak_probs)
    average = _moving_average(average, jnp.mean(weak_probs, axis=0), momentum)
    aligned = weak_probs * ((target + 1e-6) / (average + 1e-6))[None]
    return aligned / jnp.sum(aligned, axis=-1, keepdims=True), average


def _weighted_mean(weights, losses):
    return jnp.mean(jax.lax.stop_gradient(weights).astype(losses.dtype) * losses)


def _moving_average(state, batch, momentum):
    return jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, state, batch)


def _over_histogram(probs, histogram):
    """probs / histogram, 0 where the histogram is, normalised to sum 1."""
    ratio = jnp.where(histogram > 0, probs / jnp.where(histogram > 0, histogram, 1), 0)
    return ratio / jnp.sum(ratio)


def _constant(array):
    return jax.lax.stop_gradient(at_least_float32(array))


def _check_shapes(weak, strong):
    if weak.ndim != 2 or weak.shape != strong.shape:
        raise ValueError(
            f"the weak and the strong view must have one shape [B, C], got {weak.shape} and {strong.shape}"
        )
