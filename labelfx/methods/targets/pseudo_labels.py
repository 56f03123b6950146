"""How consistency training makes pseudo-labels of a weak view: what `config.method.pseudo_labels` may name.

The settings of the papers are in the builders' docstrings; their mathematics is in `labelfx.objectives.pseudo_label`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Fraction, NonNegative, Positive, Probability
from labelfx.objectives import pseudo_label


class PseudoLabels(NamedTuple):
    """Pure functions over a state of arrays, which holds what adapts.

    Attributes:
      assign: `(probs, aligned, index, state) -> (targets, weights, threshold, state)`. Probabilities [B, C] of the weak
        view, before and after distribution alignment, and the rows [B] of the images in the data set; targets [B, C]
        and weights [B] (bool or float) of the strong view's loss, and the threshold, a scalar or one for each class.
      init: `(num_classes, num_examples) -> state`.
      penalty: `(strong_logits, weights, state) -> scalar`, added to the loss; its state is that after the batch.
    """

    assign: Callable[..., Any]
    init: Callable[..., Any] = lambda num_classes, num_examples: ()
    penalty: Callable[..., Any] = lambda strong_logits, weights, state: 0.0


def fixmatch(*, threshold: Probability) -> PseudoLabels:
    """Hard labels of a confidence of at least the threshold, 0.95 (FixMatch, Sohn et al. 2020, Algorithm 1)."""

    def assign(probs, aligned, index, state):
        return _hard(aligned), pseudo_label.confident(aligned, threshold), threshold, state

    return PseudoLabels(assign)


def uda(*, temperature: Positive, threshold: Probability) -> PseudoLabels:
    """Probabilities sharpened by temperature 0.4, where the largest was above the threshold, 0.8 (UDA, Xie et al.
    2020)."""

    def assign(probs, aligned, index, state):
        targets = jax.nn.softmax(jnp.log(aligned) / temperature)
        return targets, jnp.max(aligned, axis=-1) > threshold, threshold, state

    return PseudoLabels(assign)


def flexmatch(*, threshold: Probability, warmup: bool) -> PseudoLabels:
    """Lower thresholds for classes with few confident images; 0.95, with warm-up (FlexMatch, Zhang et al. 2021,
    Algorithm 1).

    Raises:
      ValueError: labels are dense: what is remembered is one pseudo-label of each image.
    """

    def assign(probs, aligned, index, selected):
        if len(index) != len(aligned):
            raise ValueError("flexmatch remembers one pseudo-label of each image, not dense ones; take freematch")
        thresholds, selected = pseudo_label.flexmatch_thresholds(
            aligned, index, selected, threshold=threshold, warmup=warmup
        )
        return _hard(aligned), pseudo_label.confident(aligned, thresholds), thresholds, selected

    return PseudoLabels(assign, lambda num_classes, num_examples: jnp.full(num_examples, -1, jnp.int32))


def freematch(*, momentum: Fraction, fairness: NonNegative) -> PseudoLabels:
    """Thresholds of each class from moving averages, momentum 0.999, and a fairness penalty of weight 0.01 or 0.05
    (FreeMatch, Wang et al. 2023, Algorithm 1)."""

    def assign(probs, aligned, index, state):
        thresholds, state = pseudo_label.freematch_thresholds(aligned, state, momentum=momentum)
        return _hard(aligned), pseudo_label.confident(aligned, thresholds), thresholds, state

    def penalty(strong_logits, weights, state):
        return fairness * pseudo_label.freematch_fairness(strong_logits, weights, state)

    return PseudoLabels(assign, lambda num_classes, num_examples: pseudo_label.freematch_init(num_classes), penalty)


def softmatch(*, momentum: Fraction, n_sigma: Positive) -> PseudoLabels:
    """Hard labels of every image, weighted by a Gaussian of the aligned confidence; momentum 0.999, n_sigma 2, and
    `alignment` 0.999 (SoftMatch, Chen et al. 2023, Algorithm 1).

    The labels are those of before the alignment. The threshold is the mean confidence, from which on the weight is 1.
    """

    def assign(probs, aligned, index, state):
        weights, state = pseudo_label.softmatch_weights(aligned, state, momentum=momentum, n_sigma=n_sigma)
        return _hard(probs), weights, state.mean, state

    return PseudoLabels(assign, lambda num_classes, num_examples: pseudo_label.softmatch_init(num_classes))


def _hard(probs):
    return jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1], dtype=probs.dtype)
