"""Two modalities: a row is told apart from the rows of the other modality, never from those of its own.

As in `contrastive`, everything after the cosines stays in log space, embeddings of any float dtype are computed on in
float32, or float64 if they are, and anchors are taken `block_size` at a time.
"""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Fraction, NonNegative, Positive, PositiveInt
from labelfx.objectives.contrastive import (
    check_views,
    cosine,
    debiased_log_sum,
    log_weighted_mean,
    map_rows,
    normalise,
    positive_cross_entropy,
)

__all__ = ["cross_modal", "identity_matching", "similarity_distribution_matching"]  # what a config may name


def cross_modal(
    z_a, z_b, *, temperature: Positive, tau_plus: Fraction, beta: NonNegative, block_size: PositiveInt | None = None
):
    """InfoNCE between modalities, both ways, with hard negatives (Choi, Beedu & Essa 2023, arXiv 2309.01262).

    That of Robinson et al. 2021, ICLR, eq. 4 and 5 (`hard_negative`) with the B - 1 other rows of the other modality as
    negatives. tau_plus = 0 and beta = 0 give the loss of CLIP (Radford et al. 2021, ICML, figure 3).

    Args:
        z_a, z_b: [B, D] embeddings of the two modalities, not normalised; z_a[i] and z_b[i] are a pair.
        temperature: divides the cosine similarities.
        tau_plus: the probability that a negative shares the anchor's class.
        beta: concentration on the hardest negatives; 0 weights all alike.
        block_size: anchors whose similarities are in memory at once; None: see `contrastive`.

    Returns:
        A scalar, the mean over the 2B anchors; 0 for B = 1.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D].
    """

    def log_mean_of(negatives):
        return log_weighted_mean(negatives, beta * negatives)

    positive, log_mean = _both_ways(log_mean_of, z_a, z_b, temperature, block_size)
    count = len(z_a) - 1
    log_sum, _ = debiased_log_sum(
        positive, jnp.log(count) + log_mean, count, temperature=temperature, tau_plus=tau_plus
    )
    return positive_cross_entropy(positive, log_sum)


def cross_modal_diagnostics(
    z_a,
    z_b,
    *,
    temperature: Positive = 1.0,
    tau_plus: Fraction = 0.0,
    beta: NonNegative = 0.0,
    block_size: PositiveInt | None = None,
):
    """What tells that a contrastive run between two modalities has gone wrong. No gradient flows through it.

    Args:
        z_a, z_b, temperature, tau_plus, beta, block_size: as for `cross_modal`; the defaults suit an objective without
            such a setting.

    Returns:
        A dict of scalars:
            retrieval_accuracy_left, retrieval_accuracy_right: share of left (right) rows whose pair scores above all
                other rows of the other side: 1 / B by chance, 0 when collapsed.
            positive_score, negative_score: mean cosine similarity of the pairs and of all other rows of both sides.
            embedding_std: as in `contrastive.diagnostics`, the mean of both sides, each about a mean of its own.
            clamped: share of anchors on the floor of `cross_modal`'s debiased estimate.
        Those about negatives are 0 for B = 1, where retrieval is always right.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D].
    """
    z_a, z_b = jax.lax.stop_gradient((z_a, z_b))

    def of_anchor(negatives):
        is_negative = negatives != -jnp.inf
        log_mean = log_weighted_mean(negatives, beta * negatives)
        return log_mean, jnp.max(negatives), jnp.sum(negatives, where=is_negative)

    positive, (log_mean, largest, total) = _both_ways(of_anchor, z_a, z_b, temperature, block_size)
    count = len(z_a) - 1
    _, above_floor = debiased_log_sum(
        positive, jnp.log(count) + log_mean, count, temperature=temperature, tau_plus=tau_plus
    )
    found = jnp.mean((positive > largest).reshape(2, -1), axis=-1, dtype=positive.dtype)
    spread = [jnp.mean(jnp.std(normalise(z), axis=0)) for z in (z_a, z_b)]
    return {
        "retrieval_accuracy_left": found[0],
        "retrieval_accuracy_right": found[1],
        "positive_score": jnp.mean(positive) * temperature,
        "negative_score": jnp.mean(total) * temperature / max(1, count),
        "embedding_std": (spread[0] + spread[1]) / 2,
        "clamped": jnp.mean(~above_floor & (count > 0), dtype=positive.dtype),
    }


def identity_matching(z_a, z_b, *, temperature: Positive, epsilon: Positive):
    """`similarity_distribution_matching` without labels: every row of the batch shows somebody else (Jiang & Ye 2023).

    Args, returns and raises: as there.
    """
    return similarity_distribution_matching(z_a, z_b, jnp.arange(len(z_a)), temperature=temperature, epsilon=epsilon)


def similarity_distribution_matching(image, text, labels, *, temperature: Positive, epsilon: Positive):
    """SDM: KL from similarities to label matches, image to text and back (IRRA, Jiang & Ye 2023, CVPR).

    p_i is the softmax of the cosines of row i over temperature, q_i uniform over the rows with its label; each
    direction is the mean of sum_j p_ij log(p_ij / (q_ij + epsilon)).

    Args:
        image, text: [B, D] embeddings of pairs, not normalised, of any float dtype; computed on in float32 or float64.
        labels: int [B], such as whom both show; equal labels match.
        temperature: divides the cosines; the paper's is 0.02.
        epsilon: the authors' is 1e-8. The price of a wrong match is -log(epsilon).

    Returns:
        A scalar, the sum of both directions; slightly below 0 at best.

    Raises:
        ValueError: if image and text are not of one shape [B, D] or labels not [B].
    """
    check_views("image", image, "text", text)
    if labels.shape != image.shape[:1]:
        raise ValueError(f"labels must have shape [B] for embeddings of [B, D], got {labels.shape} and {image.shape}")
    scores = cosine(normalise(image), normalise(text)) / temperature
    same = (labels[:, None] == labels[None]).astype(scores.dtype)
    log_match = jnp.log(same / jnp.sum(same, axis=-1, keepdims=True) + epsilon)
    return _divergence(scores, log_match) + _divergence(scores.T, log_match)


def _divergence(scores, log_match):
    log_probs = jax.nn.log_softmax(scores)
    return jnp.mean(jnp.sum(jnp.exp(log_probs) * (log_probs - log_match), axis=-1))


def _both_ways(function, z_a, z_b, temperature, block_size):
    """Of the 2B anchors, z_a first, cosine / temperature with the pair, and what `function` makes of that with the
    other side: of one anchor [B], -inf where it meets its pair."""
    check_views("z_a", z_a, "z_b", z_b)
    left, right = normalise(z_a), normalise(z_b)
    row = jnp.arange(len(left))

    def one_way(anchors, others):
        def of_anchor(anchor):
            z_i, row_i = anchor
            return function(jnp.where(row == row_i, -jnp.inf, cosine(z_i, others) / temperature))

        return map_rows(of_anchor, (anchors, row), len(row), block_size)

    positive = jnp.sum(left * right, axis=-1) / temperature
    ways = one_way(left, right), one_way(right, left)
    return jnp.concatenate([positive, positive]), jax.tree.map(lambda *way: jnp.concatenate(way), *ways)
