"""Losses for labels of which some classes have many and others few: `class_counts` [C] are those that the run is told.

Reweighting by labels of which rules have replaced some is by what people said, not by what the rule did.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config.annotations import Fraction, Positive
from labelfx.objectives._rows import check_rows
from labelfx.objectives.classification import cross_entropy


def logit_adjusted(
    logits: jax.Array, label: jax.Array, class_counts: Any, weight: jax.Array | None = None, *, temperature: Positive
) -> jax.Array:
    """Cross-entropy of logits to which `temperature` log(prior) is added in training alone, so that what is learnt is
    as good for rare classes as for common ones (logit adjustment, Menon et al. 2021, ICLR, eq. 10).

    At the temperature 1 the argmax of the logits as they are has the least balanced error where the network is right.

    Args:
      logits: [B, C], or [B, H, W, C] of positions; of any float dtype; computed on in float32 or float64.
      label: int32 [B], or [B, H, W], from 0 to C - 1, or -1 for none.
      class_counts: int [C], NumPy, how many labels each class has in the label view: their shares are the prior.
      weight: float [B], or [B, H, W], from 0 up: times the loss; 0 leaves a row out, None is 1 for all.

    Returns:
      A scalar, as `cross_entropy`.

    Raises:
      ValueError: shapes differ, or a class has no label, whose prior has no logarithm.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    counts = _checked(class_counts, logits.shape[-1])
    shift = jnp.asarray(temperature * np.log(counts / counts.sum()), logits.dtype)
    return cross_entropy(logits + shift.reshape(*[1] * (logits.ndim - 1), -1), label, weight, label_smoothing=0.0)


def balanced_cross_entropy(
    logits: jax.Array, label: jax.Array, class_counts: Any, weight: jax.Array | None = None, *, beta: Fraction
) -> jax.Array:
    """Cross-entropy times (1 - beta) / (1 - beta^n) of the label's class, which has n labels; scaled so that the mean
    over classes is 1 (class-balanced loss, Cui et al. 2019, CVPR, eq. 12).

    Beta 0 is plain cross-entropy, beta -> 1 weighs by 1 / n; 0.9999 is the authors' of long-tailed CIFAR.

    Args, returns and raises as `logit_adjusted`. It is the mean over rows, not over the sum of their weights.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    return cross_entropy(logits, label, _balanced(logits, label, class_counts, weight, beta), label_smoothing=0.0)


def ldam(
    logits: jax.Array,
    label: jax.Array,
    class_counts: Any,
    weight: jax.Array | None = None,
    *,
    margin: Positive,
    scale: Positive,
    beta: Fraction,
) -> jax.Array:
    """`balanced_cross_entropy` of `scale` times the logits, of which that of the label is lowered by a margin in
    proportion to n^(-1/4), so that rare classes are kept at a greater distance (label-distribution-aware margin, Cao et
    al. 2019, NeurIPS, eq. 13).

    The logits are cosines, such as of the classifier `cosine`. Deferred re-weighting is two phases, the first with
    `beta` 0.

    Args:
      logits, label, class_counts, weight: as of `logit_adjusted`.
      margin: that of the rarest class, in units of logits; the authors' is 0.5.
      scale: what the logits are multiplied by; the authors' is 30.
      beta: as of `balanced_cross_entropy`.

    Returns:
      A scalar, the mean over rows. The authors' code divides by the sum of a batch's weights instead.

    Raises:
      ValueError: as `logit_adjusted`.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    counts = _checked(class_counts, logits.shape[-1])
    margins = jnp.asarray(margin * (counts.min() / counts) ** 0.25, logits.dtype)
    lowered = logits - jax.nn.one_hot(label, len(counts), dtype=logits.dtype) * margins.reshape(
        *[1] * (logits.ndim - 1), -1
    )
    weight = _balanced(logits, label, counts, weight, beta)
    return cross_entropy(scale * lowered, label, weight, label_smoothing=0.0)


def _balanced(logits, label, class_counts, weight, beta):
    """The weight of each row, float [B]."""
    counts = _checked(class_counts, logits.shape[-1])
    with np.errstate(divide="ignore"):
        weights = (1 - beta) / -np.expm1(counts * np.log(beta))
    each = jnp.asarray(weights / weights.mean(), logits.dtype)[jnp.maximum(label, 0)]
    if weight is None:
        return each
    return each * jnp.expand_dims(weight.astype(logits.dtype), tuple(range(weight.ndim, label.ndim)))


def _checked(class_counts, num_classes):
    if class_counts is None or np.shape(class_counts) != (num_classes,):
        found = "labels that are no classes" if class_counts is None else f"shape {np.shape(class_counts)}"
        raise ValueError(f"class_counts must be numbers of labels [{num_classes}], got {found}")
    if np.min(class_counts) < 1:
        raise ValueError(f"class {int(np.argmin(class_counts))} has no label; every class must have one to be weighed")
    return np.asarray(class_counts, np.float64)
