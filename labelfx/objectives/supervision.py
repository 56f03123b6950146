"""Losses of weak labels: sets of candidates, noisy labels, positive rows among unlabelled ones, and bags.

A loss of one binary decision takes one logit, of the positive class, or two, whose difference z_1 - z_0 it is.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config.annotations import Fraction, Probability
from labelfx.objectives._rows import check_rows, choose, mean_of_said
from labelfx.objectives.contrastive import at_least_float32

__all__ = [  # what a config may name
    "candidates",
    "forward",
    "pooled",
    "positive_unlabelled",
    "proportion",
    "unbiased",
]

Clamp = Literal["none", "nonnegative", "ascent"]
Pool = Literal["max", "noisy_or", "log_sum_exp", "mean", "linear_softmax", "attention"]
Matrix = tuple[tuple[Probability, ...], ...]
NEVER = -1e30  # the log of a count's probability before it can be reached: minus infinity has no gradient
FAR = -20.0  # below, e^x is so small that the series of two terms is exact in float64


def candidates(
    logits: jax.Array, candidates: jax.Array, weight: jax.Array | None = None, *, loss: Literal["log", "exp", "mae"]
) -> jax.Array:
    """Partial and complementary labels: the true class is one of a set S (MCL, Feng et al. 2020, ICML).

    With P = sum_S softmax(z), "log" is -log P, "exp" is e^-P and "mae" is 1 - P. Where S is all classes but a
    complementary one, y', these are -log(1 - p_y') (SCL-NL), e^(p_y') / e (SCL-EXP) and p_y' of Chou et al. 2020, ICML.
    Where S is one class, "log" is the cross-entropy. Public code of MCL sums over the batch and multiplies each row's
    loss by 2 (C - 1) / |S|; here it is the mean, unscaled.

    Args:
      logits: [B, C], or [B, H, W, C] of positions; of any float dtype; computed on in float32 or float64.
      candidates: bool, of the same shape. All True says nothing; so does all False, which views refuse.
      weight: float [B], or [B, H, W], from 0 up: times the loss; 0 leaves a row out, None is 1 for all.

    Returns:
      A scalar: the sum over rows of which something is said and whose weight is above 0, over their number; 0 without
      any.

    Raises:
      ValueError: shapes differ, or the loss is none of those above.
    """
    logits = check_rows(logits, {"candidates": candidates}, entries=True)
    said = jnp.any(candidates, axis=-1) & ~jnp.all(candidates, axis=-1)
    inside, outside = (
        jax.nn.logsumexp(logits, axis=-1, where=jnp.where(said[..., None], each, True))
        for each in (candidates, ~candidates)
    )
    margin = inside - outside  # the logit of P
    p = jax.nn.sigmoid(margin)
    losses = {"log": jax.nn.softplus(-margin), "exp": jnp.exp(-p), "mae": jax.nn.sigmoid(-margin)}
    return mean_of_said(choose("loss", loss, losses), said, weight)


def forward(logits: jax.Array, label: jax.Array, *, transition: Matrix, anchor: Fraction) -> jax.Array:
    """Forward correction, -log(sum_k softmax(z)_k T[k, label] + anchor) (Patrini et al. 2017, CVPR, Theorem 2).

    For complementary labels T has the diagonal 0 (FWD, Yu et al. 2018, ECCV).

    Args:
      logits: [B, C], or [B, H, W, C] of positions; of any float dtype; computed on in float32 or float64.
      label: int32 [B], or [B, H, W], as given, from 0 to C - 1, or -1 for none.
      transition: T [C, C]: in row k the probabilities of labels given where the true class is k.
      anchor: bounds the loss by -log anchor, which public code puts at -log 1e-6. At 0 a label that no class gives
        has the loss infinity.

    Returns:
      A scalar, the mean over rows with a label; 0 without any.

    Raises:
      ValueError: shapes differ, or T is not C distributions.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    given = jnp.asarray(_distributions(transition, logits.shape[-1]).T, logits.dtype)[jnp.maximum(label, 0)]
    log_probs = jax.nn.log_softmax(logits)
    log_given = jax.nn.logsumexp(log_probs, axis=-1, b=given)
    if anchor:
        log_given = jnp.logaddexp(log_given, jnp.asarray(np.log(anchor), logits.dtype))
    return mean_of_said(-log_given, label >= 0)


def unbiased(
    logits: jax.Array, label: jax.Array, class_counts: Any = None, *, transition: Matrix, clamp: Clamp
) -> jax.Array:
    """Backward correction: its mean over draws of labels is the risk of true ones (Patrini et al. 2017, Theorem 1).

    With l_k = -log softmax(z)_k, the risk of true class k is R_k, the mean over rows of (T^-1)[label, k] l_k: over
    labels j, of the share that j has times the mean over rows that it is given to. The share is that of `class_counts`,
    as in the code of Ishida et al.: by the shares of a small batch some R_k is below 0 from the first step. Their sum
    can fall without bound; "nonnegative" is sum max(R_k, 0), and "ascent" has the value of the sum and, as soon as some
    R_k < 0, the gradient that raises those: the corrections of Ishida et al. 2019, ICML, for complementary labels (URE,
    NN and GA; T has the diagonal 0). libcll clamps the parts of each complementary class, whose total is the same;
    the paper's parts, and these, are those of each true class.

    Args:
      logits: [B, C], or [B, H, W, C] of positions; of any float dtype; computed on in float32 or float64.
      label: int32 [B], or [B, H, W], as given, from 0 to C - 1, or -1 for none.
      class_counts: int [C], how often each label is given in the label view; None is: as often as in these rows.
      transition: T [C, C]: in row k the probabilities of labels given where the true class is k.

    Returns:
      A scalar; means are over rows with a label, 0 without any.

    Raises:
      ValueError: shapes differ, T is not C distributions or cannot be inverted, or clamp is none of those above.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    matrix = _distributions(transition, logits.shape[-1])
    condition = np.linalg.cond(matrix)
    if condition > 1e6:
        raise ValueError(f"transition must have an inverse, but its condition number is {condition:.1g}")
    inverse = jnp.asarray(np.linalg.inv(matrix), logits.dtype)[jnp.maximum(label, 0)]
    losses, said = -inverse * jax.nn.log_softmax(logits), label >= 0
    if class_counts is not None:
        shares = jnp.asarray(class_counts / np.maximum(np.sum(class_counts), 1), logits.dtype)
        here = jnp.bincount(jnp.where(said, label, len(shares)).ravel(), length=len(shares)).astype(logits.dtype)
        losses *= (shares * jnp.sum(here) / jnp.maximum(here, 1))[jnp.maximum(label, 0)][..., None]
    by_class = jax.vmap(mean_of_said, in_axes=(-1, None))(losses, said)
    return _clamped(by_class, clamp)


def positive_unlabelled(
    logits: jax.Array, observed: jax.Array, propensity: jax.Array | None = None, *, clamp: Clamp
) -> jax.Array:
    """Risk of a classifier from positive rows that were observed with known propensities e (SAR-E, Bekker et al. 2019).

    The mean over all rows of w l+ + (1 - w) l-, with w = 1 / e where a positive was observed and 0 elsewhere, and l+
    and l- the logistic losses of a positive and of a negative. Where e is one constant that is uPU
    (du Plessis et al. 2015, ICML), and with the clamp "nonnegative", which stops the second part at 0, nnPU (Kiryo et
    al. 2017, NeurIPS); "ascent" has the value of the sum and, where the second part is below 0, the gradient that
    raises it, as in nnPU's Algorithm 1 with beta = 0 and gamma = 1.

    Args:
      logits: [B, 1], or [B, 2], whose difference it is; of any float dtype; computed on in float32 or float64.
      observed: bool [B], rows known to be positive; what the others are nobody says.
      propensity: float [B], in (0, 1] where observed: the probability that this row, being positive, was; not read
        elsewhere. None is 1, as if every other row were a negative: the naive classifier.

    Returns:
      A scalar.

    Raises:
      ValueError: shapes differ, or clamp is none of those above.
    """
    if propensity is None:
        propensity = jnp.ones(observed.shape, logits.dtype)
    logits = check_rows(logits, {"observed": observed, "propensity": propensity}, entries=False)
    margin = _binary(logits)[:, 0]
    weight = jnp.where(observed, 1 / jnp.where(observed, propensity, 1).astype(margin.dtype), 0)
    return _one_sided(jax.nn.softplus(-margin), jax.nn.softplus(margin), weight, clamp)


def proportion(
    logits: jax.Array,
    bag: jax.Array,
    bag_target: jax.Array,
    valid: jax.Array | None = None,
    *,
    divergence: Literal["kl", "count"],
) -> jax.Array:
    """Learning from label proportions: of a bag it is known which share of its rows has which class.

    "kl" is KL(proportions || mean of the rows' softmax), the cross-entropy of Ardehaly and Culotta 2017 less the
    entropy of the proportions; "count", for two classes, -log of the probability that as many rows as are said to be
    are positive, exactly, by convolution (a Poisson binomial distribution): O(B^2) time and memory.

    Args:
      logits: [B, C], and for "count" [B, 1] or [B, 2]; of any float dtype; computed on in float32 or float64.
      bag: int32 [B]; rows of one number are one bag, all of it; -1 is none.
      bag_target: float [B, C], the proportions, the same in all rows of a bag; NaN anywhere says nothing of the bag.
        "count" reads the last column and rounds what it gives to a number of rows.
      valid: bool [B], False for rows that fill up the batch; None is True for all.

    Returns:
      A scalar, the mean over bags of which something is said; 0 without any.

    Raises:
      ValueError: shapes differ, "count" and more than two classes, or another divergence.
    """
    logits = check_rows(logits, {"bag_target": bag_target}, entries=True)
    slot, counted = _slots(logits, bag, valid)
    size = jax.ops.segment_sum(counted.astype(logits.dtype), slot, len(slot))
    said = (size > 0) & ~jnp.any(jnp.isnan(bag_target), axis=-1)
    target = jnp.where(said[:, None], bag_target, 0).astype(logits.dtype)
    of_bags = choose("divergence", divergence, {"kl": _divergence, "count": _unlikelihood})
    return mean_of_said(of_bags(logits, target, slot, counted, size), said)


def pooled(
    logits: jax.Array, bag: jax.Array, bag_target: jax.Array, valid: jax.Array | None = None, *, pool: Pool
) -> jax.Array:
    """Multiple-instance learning: binary cross-entropy of bags, whose logits are pooled from those of their rows.

    A bag is positive where it holds a positive row, so its logit must not fall when a row is added (Raff and Holt 2023,
    NeurIPS): that holds for "max", "noisy_or" (the logit of 1 - prod(1 - sigmoid(z))) and "log_sum_exp", and not for
    "mean", "linear_softmax" and "attention", which may learn that a bag is positive unless some row speaks against it.
    In a bag of one row all are its logit. No pool of one logit a row needs two different concepts in a bag: "max" asks
    for one, and the others take one that is there often for two.

    "linear_softmax" has the probability sum s^2 / sum s of the rows' s = sigmoid(z): its gradient raises the rows of a
    positive bag whose s is above half of that and lowers the others (weakly supervised grounding; "Towards Weakly
    Supervised Text-to-Audio Grounding").

    "attention" is the mean of the rows' logits by weights, softmax over the bag of what the two logits of a row have in
    common, their mean. With the head `attention` that is exactly the pooling of Ilse et al. 2018, ICML, eq. 7 and 8: an
    affine classifier of a weighted mean of features is the weighted mean of its logits.

    Args:
      logits: [B, C]; of any float dtype; computed on in float32 or float64. Two are those of a binary decision, whose
        difference is the logit; otherwise each is the logit of its class, or of several labels.
      bag: int32 [B]; rows of one number are one bag, all of it; -1 is none.
      bag_target: float [B, C], 1 where the bag holds the class and 0 where not, the same in all rows of a bag; NaN is
        unknown. Of two classes the second alone is read.
      valid: bool [B], False for rows that fill up the batch; None is True for all.

    Returns:
      A scalar, the mean over bags of which something is said of the sum over classes; 0 without any.

    Raises:
      ValueError: shapes differ, pool is none of those above, or it is "attention" and the logits are not two.
    """
    logits = check_rows(logits, {"bag_target": bag_target}, entries=True)
    slot, counted = _slots(logits, bag, valid)
    scores = bag_logits(logits, slot, counted, pool=pool)
    target = bag_target[:, -scores.shape[1] :]
    known = (jax.ops.segment_sum(counted.astype(jnp.int32), slot, len(slot)) > 0)[:, None] & ~jnp.isnan(target)
    target = jnp.where(known, target, 0).astype(scores.dtype)
    losses = jnp.sum(jax.nn.softplus(scores) - target * scores, axis=-1, where=known)
    return mean_of_said(losses, jnp.any(known, axis=-1))


def bag_logits(logits: jax.Array, slot: jax.Array, counted: jax.Array, *, pool: Pool) -> jax.Array:
    """The logits of bags, pooled from those of their rows: [B, C], or [B, 1] of two classes; finite in empty slots.

    Args:
      logits: [B, C], as in `pooled`.
      slot: int [B], from 0 to B - 1: the bag of each row.
      counted: bool [B], rows that count.

    Raises:
      ValueError: pool is none of those there are, or it is "attention" and C is not 2.
    """
    scores = _binary(logits) if logits.shape[1] == 2 else at_least_float32(logits)
    attention = functools.partial(_attention, logits)
    pools = {"max": _max, "noisy_or": _noisy_or, "log_sum_exp": _log_sum_exp, "mean": _mean}
    pools |= {"linear_softmax": _linear_softmax, "attention": attention}
    return choose("pool", pool, pools)(scores, slot, counted)


def _slots(logits, bag, valid):
    """The place of the first row of each row's bag, where its target stands too, and which rows count: both [B].

    Raises:
      ValueError: logits are not [B, C], or bag or valid not [B].
    """
    valid = jnp.ones(len(logits), bool) if valid is None else valid
    if logits.ndim != 2 or not bag.shape == valid.shape == logits.shape[:1]:
        raise ValueError(f"logits must be [B, C], bag and valid [B], got {logits.shape}, {bag.shape} and {valid.shape}")
    return jnp.argmax(bag[:, None] == bag[None], axis=1), valid & (bag >= 0)


def _binary(logits):
    """The logit of the positive class, [B, 1], of [B, 1] or [B, 2]."""
    if logits.ndim != 2 or logits.shape[1] > 2:
        raise ValueError(f"the logits of a binary decision must be [B, 1] or [B, 2], got {logits.shape}")
    logits = at_least_float32(logits)
    return logits if logits.shape[1] == 1 else logits[:, 1:] - logits[:, :1]


def _distributions(transition, num_classes):
    matrix = np.asarray(transition, np.float64)
    if matrix.shape != (num_classes, num_classes):
        raise ValueError(f"transition must be [{num_classes}, {num_classes}], got {matrix.shape}")
    if (matrix < 0).any() or np.abs(matrix.sum(axis=1) - 1).max() > 1e-4:
        raise ValueError(f"each row of transition must be probabilities, from 0 up with sum 1, got {matrix.tolist()}")
    return matrix


def _clamped(parts, clamp):
    """The sum of parts of a risk, none of which can be below 0 but by an estimate: [K] to a scalar."""
    risk, below = jnp.sum(parts), parts < 0
    negative = jnp.sum(parts, where=below)
    ascending = jnp.where(jnp.any(below), -negative, risk)
    values = {
        "none": risk,
        "nonnegative": jnp.sum(parts, where=~below),
        "ascent": ascending + jax.lax.stop_gradient(risk - ascending),
    }
    return choose("clamp", clamp, values)


def _one_sided(positive, negative, weight, clamp):
    """The mean of weight positive + (1 - weight) negative, [B] each: of losses of which one is known of some rows."""
    every = jnp.ones(len(positive), bool)
    return _clamped(
        jnp.stack([mean_of_said(weight * positive, every), mean_of_said((1 - weight) * negative, every)]), clamp
    )


def _divergence(logits, target, slot, counted, size):
    log_mean = _log_sum_exp(jax.nn.log_softmax(logits), slot, counted) - jnp.log(jnp.maximum(size, 1))[:, None]
    return jnp.sum(jax.scipy.special.xlogy(target, target) - target * log_mean, axis=-1)


def _unlikelihood(logits, target, slot, counted, size):
    """-log P(as many rows of the bag are positive as are said to be)."""
    margin = _binary(logits)[:, 0]
    order = jnp.argsort(slot)  # so that the rows of a bag follow each other
    own = slot[order]
    begins = jnp.concatenate([jnp.ones(1, bool), own[1:] != own[:-1]])
    nothing = jnp.full(len(margin) + 1, NEVER, margin.dtype).at[0].set(0)

    def add(before, row):  # to the logs of the probabilities of the counts
        begins, counts, no, yes, said = row
        before = jnp.where(begins, nothing, before)
        after = jnp.logaddexp(before + no, jnp.concatenate([nothing[1:2], before[:-1]]) + yes)
        after = jnp.where(counts, after, before)
        return after, -after[said]

    said = jnp.round(target[:, -1] * size).astype(jnp.int32)[own]
    rows = begins, counted[order], jax.nn.log_sigmoid(-margin)[order], jax.nn.log_sigmoid(margin)[order], said
    _, losses = jax.lax.scan(add, nothing, rows)
    return jax.ops.segment_sum(jnp.where(jnp.roll(begins, -1), losses, 0), own, len(slot))  # after a bag's last row


def _log_sum_exp(scores, slot, counted):
    """The log of the sum of e^score over the rows of a bag, of each column: [B, K]."""
    scores = jnp.where(counted[:, None], scores, -jnp.inf)
    largest = jax.ops.segment_max(jax.lax.stop_gradient(scores), slot, len(slot))
    largest = jnp.where(jnp.isfinite(largest), largest, 0)
    total = jax.ops.segment_sum(jnp.exp(scores - largest[slot]), slot, len(slot))
    empty = jax.ops.segment_sum(counted.astype(jnp.int32), slot, len(slot))[:, None] == 0
    return jnp.log(jnp.where(empty, 1, total)) + largest


def _max(scores, slot, counted):
    """Rows that tie share the gradient."""
    masked = jnp.where(counted[:, None], jax.lax.stop_gradient(scores), -jnp.inf)
    best = masked == jax.ops.segment_max(masked, slot, len(slot))[slot]
    return _mean(scores, slot, best)


def _mean(scores, slot, counted):
    counted = counted if counted.ndim == 2 else counted[:, None]
    number = jax.ops.segment_sum(counted.astype(scores.dtype), slot, len(slot))
    return jax.ops.segment_sum(jnp.where(counted, scores, 0), slot, len(slot)) / jnp.maximum(number, 1)


def _linear_softmax(scores, slot, counted):
    """The logit of sum s^2 / sum s, log sum s^2 - log sum s (1 - s), finite where every s is 0 or 1."""
    yes, no = jax.nn.log_sigmoid(scores), jax.nn.log_sigmoid(-scores)
    return _log_sum_exp(2 * yes, slot, counted) - _log_sum_exp(yes + no, slot, counted)


def _attention(logits, scores, slot, counted):
    if logits.shape[1] != 2:
        raise ValueError(f"pool = 'attention' reads two logits a row, got {logits.shape}")
    shared = jnp.mean(at_least_float32(logits), axis=1, keepdims=True)
    log_weights = shared - _log_sum_exp(shared, slot, counted)[slot]
    weights = jnp.exp(jnp.where(counted[:, None], log_weights, -jnp.inf))
    return jax.ops.segment_sum(weights * scores, slot, len(slot))


def _noisy_or(scores, slot, counted):
    """log(prod(1 + e^score) - 1), from A = the sum of softplus(score), and log A where it is too small for that."""
    low = scores < FAR
    small = jnp.minimum(scores, FAR)
    log_each = jnp.where(low, small - jnp.exp(small) / 2, jnp.log(jax.nn.softplus(jnp.where(low, 0, scores))))
    log_sum = _log_sum_exp(log_each, slot, counted)
    low = log_sum < FAR
    small, total = jnp.minimum(log_sum, FAR), jnp.exp(jnp.where(low, 0, log_sum))
    return jnp.where(low, small + jnp.exp(small) / 2, total + jnp.log(-jnp.expm1(-total)))
