"""Deep metric learning from labels: losses on pairs and on proxies of the classes, and mixup in front of them.

All pairs count, nothing is mined. Similarities are cosines of embeddings that need not be normalised; the sums of
exponentials stay in log space. Embeddings of any float dtype are computed on, and the results returned, in float32, or
in float64 if they are float64.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from labelfx.config.annotations import NonNegative, Positive
from labelfx.objectives.contrastive import at_least_float32, check_views, cosine, normalise

__all__ = ["multi_similarity", "proxy_anchor", "proxy_nca"]  # what a config may name


def multi_similarity(z, labels, *, alpha: Positive, beta: Positive, base: float):
    """Multi-similarity loss without its mining (Wang et al. 2019, CVPR, eq. 15).

    For each anchor, log(1 + sum_positives e^{-alpha (s - base)}) / alpha + log(1 + sum_negatives e^{beta (s - base)}) /
    beta. The authors' code has alpha 2, beta 50, base 0.5.

    Args:
        z: [B, D] embeddings, not normalised.
        labels: int [B].
        alpha, beta: sharpness over positives and negatives.
        base: the cosine similarity that separates them, the paper's lambda.

    Returns:
        A scalar, the mean over all B anchors; an empty set of positives or negatives contributes 0.

    Raises:
        ValueError: if z is not [B, D] or labels not [B].
    """
    _check_labels(z, labels)
    z = normalise(z)
    same = labels[:, None] == labels[None]
    is_other = ~jnp.eye(len(z), dtype=bool)
    return _multi_similarity(cosine(z, z), same & is_other, ~same, alpha, beta, base)


def proxy_nca(z, labels, proxies, *, temperature: Positive, normaliser: Literal["negatives", "all"]):
    """ProxyNCA (Movshovitz-Attias et al. 2017, ICCV), or ProxyNCA++ (Teh et al. 2020, ECCV).

    The mean of -log(e^{-d(z, p_label) / temperature} / sum_p e^{-d(z, p) / temperature}), d the squared distance of the
    normalised vectors. ProxyNCA sums over the proxies of the other classes and has no temperature (1); ProxyNCA++ over
    those of all classes, so that the fraction is a probability, at temperature 1 / 9.

    Args:
        z: [B, D] embeddings, not normalised.
        labels: int [B], from 0 to C - 1.
        proxies: [C, D], C >= 2, one for each class, not normalised.
        temperature: divides the distances.
        normaliser: over which proxies the sum is: "negatives" (ProxyNCA) or "all" (ProxyNCA++).

    Returns:
        A scalar, the mean over B; below 0 at best for "negatives".

    Raises:
        ValueError: if z, labels or proxies have other shapes, or normaliser is none of those above.
    """
    _check_labels(z, labels)
    _check_proxies(z, proxies)
    if normaliser not in ("negatives", "all"):
        raise ValueError(f"normaliser must be 'negatives' or 'all', got {normaliser!r}")
    scores = 2 * cosine(normalise(z), normalise(proxies)) / temperature  # 2 / temperature more than -distance
    is_negative = ~jax.nn.one_hot(labels, len(proxies), dtype=bool)
    positive = jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]
    log_odds = jax.nn.logsumexp(scores, axis=-1, where=is_negative) - positive
    return jnp.mean(jax.nn.softplus(log_odds) if normaliser == "all" else log_odds)


def proxy_anchor(z, labels, proxies, *, alpha: Positive, margin: float):
    """Proxy-Anchor loss: every proxy meets all embeddings of the batch (Kim et al. 2020, CVPR, eq. 4).

    The mean of log(1 + sum_positives e^{-alpha (s - margin)}) over the proxies with positives, plus that of
    log(1 + sum_negatives e^{alpha (s + margin)}) over all proxies. The paper has alpha 32, margin 0.1.

    Args:
        z: [B, D] embeddings, not normalised.
        labels: int [B], from 0 to C - 1.
        proxies: [C, D], C >= 2, one for each class, not normalised.
        alpha: sharpness.
        margin: the paper's delta.

    Returns:
        A scalar.

    Raises:
        ValueError: if z, labels or proxies have other shapes.
    """
    _check_labels(z, labels)
    _check_proxies(z, proxies)
    same = jnp.arange(len(proxies))[:, None] == labels[None]
    return _proxy_anchor(cosine(normalise(proxies), normalise(z)), same, ~same, alpha, margin)


def symmetric_multi_similarity(z_a, z_b, relevance, *, margin: Positive, threshold: Positive, relaxation: NonNegative):
    """Symmetric multi-similarity loss, SMS, for graded labels (Wang et al. 2025, arXiv 2506.14356, eq. 16).

    The pair of an anchor i is row i of the other side. Let R = c_ii - c_ik and d = s_ii - s_ik for any other row k of
    that side. Where |R| >= threshold, d shall be R margin or more in the direction of R: [R margin - d]_+, or
    [d - R margin]_+ for R < 0. Elsewhere d shall be near 0: [|d| - relaxation]_+. The paper has margin 0.6, threshold
    0.1, relaxation 0.1. Relevance 0 off the diagonal gives EgoVLP's adaptive max-margin loss (eq. 6). The authors' code
    differs near R = 0: it has |R| < 1.1 / 240 and |d - R margin| there.

    Args:
        z_a, z_b: [B, D] embeddings of both sides, such as two modalities or two views, not normalised.
        relevance: [B, B] in [0, 1], c of row i of z_a to row k of z_b; its diagonal need not be 1.
        margin: the paper's gamma.
        threshold: the paper's lambda.
        relaxation: the paper's tau.

    Returns:
        A scalar, the mean over the 2 B (B - 1) anchors of both sides and other rows (the paper has the sum, its code
        the mean); 0 for B = 1.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D] or relevance not [B, B].
    """
    check_views("z_a", z_a, "z_b", z_b)
    if relevance.shape != (len(z_a), len(z_a)):
        raise ValueError(f"relevance must have shape [B, B] for z_a of [B, D], got {relevance.shape} and {z_a.shape}")
    scores = cosine(normalise(z_a), normalise(z_b))
    both = jnp.stack([scores, scores.T])
    difference = jnp.diagonal(scores)[None, :, None] - both
    relevance = relevance.astype(scores.dtype)
    wanted = jnp.diagonal(relevance)[None, :, None] - jnp.stack([relevance, relevance.T])
    graded = jax.nn.relu(jnp.sign(wanted) * (wanted * margin - difference))
    loss = jnp.where(jnp.abs(wanted) >= threshold, graded, jax.nn.relu(jnp.abs(difference) - relaxation))
    is_other = ~jnp.eye(len(scores), dtype=bool)
    return jnp.sum(loss, where=is_other[None]) / max(1, 2 * len(scores) * (len(scores) - 1))


def metric_mix(z, positive, pairs, interpolation):
    """Metric Mix, or Metrix: interpolates embeddings and what they are to an anchor (Venkataramanan et al. 2022, ICLR).

    An example's label is 1 for the anchors of its class and 0 for others. The paper draws pairs of a positive and a
    negative of the anchor, interpolation from Beta(2, 2), and minimises the clean loss plus 0.4 times the mixed one:
    `mixed_multi_similarity` or `mixed_proxy_anchor` of what this returns.

    Args:
        z: [B, D] embeddings; the paper's are normalised.
        positive: bool [A, B], which examples have the class of an anchor; anchors are embeddings or proxies.
        pairs: int [A, M, 2], rows of z to be mixed for each anchor.
        interpolation: float [A, M] in [0, 1], the share of the first of a pair.

    Returns:
        Mixed embeddings [A, M, D], not normalised again, and their labels [A, M] in [0, 1].
    """
    z = at_least_float32(z)
    first, second = pairs[..., 0], pairs[..., 1]
    share = interpolation.astype(z.dtype)
    label = positive.astype(z.dtype)
    label_first, label_second = (jnp.take_along_axis(label, rows, axis=1) for rows in (first, second))
    return (
        share[..., None] * z[first] + (1 - share[..., None]) * z[second],
        share * label_first + (1 - share) * label_second,
    )


def mixed_multi_similarity(anchors, mixed, mixed_labels, *, alpha: Positive, beta: Positive, base: float):
    """`multi_similarity` of anchors [A, D] and what `metric_mix` returned; the mean over A.

    Mixed embedding j counts with weight y_j among the positives and 1 - y_j among the negatives. The authors' code adds
    clean and mixed terms inside the logarithms; the paper has a loss of each, which is done here.
    """
    return _multi_similarity(_mixed_scores(anchors, mixed), mixed_labels, 1 - mixed_labels, alpha, beta, base)


def mixed_proxy_anchor(proxies, mixed, mixed_labels, *, alpha: Positive, margin: float):
    """`proxy_anchor` of proxies [C, D] and what `metric_mix` returned for them; weights as in
    `mixed_multi_similarity`."""
    return _proxy_anchor(_mixed_scores(proxies, mixed), mixed_labels, 1 - mixed_labels, alpha, margin)


def utilization(queries, embeddings):
    """How far test queries are from the training set (Venkataramanan et al. 2022, ICLR): lower is better.

    Args:
        queries: [Q, D] embeddings of test images.
        embeddings: [N, D] those of training images. Both are normalised here.

    Returns:
        A scalar from 0 to 4, the mean over queries of the least squared distance.
    """
    return jnp.mean(2 - 2 * jnp.max(cosine(normalise(queries), normalise(embeddings)), axis=-1))


def _multi_similarity(scores, positive, negative, alpha, beta, base):
    """Scores and weights [A, N]; the mean over A."""
    attraction = _log_one_plus_sum(-alpha * (scores - base), positive) / alpha
    return jnp.mean(attraction + _log_one_plus_sum(beta * (scores - base), negative) / beta)


def _proxy_anchor(scores, positive, negative, alpha, margin):
    """Scores and weights [C, N]."""
    attraction = _log_one_plus_sum(-alpha * (scores - margin), positive)
    repulsion = _log_one_plus_sum(alpha * (scores + margin), negative)
    with_positives = jnp.sum(jnp.any(positive, axis=-1), dtype=scores.dtype)
    return jnp.sum(attraction) / jnp.maximum(with_positives, 1) + jnp.mean(repulsion)


def _log_one_plus_sum(exponents, weights):
    """log(1 + sum_j w_j e^{x_j}) over the last axis; 0 where all weights are."""
    return jax.nn.softplus(jax.nn.logsumexp(exponents, axis=-1, b=weights.astype(exponents.dtype)))


def _mixed_scores(anchors, mixed):
    # As for `cosine`, the default precision of accelerators is too low.
    return jnp.einsum("ad,amd->am", normalise(anchors), normalise(mixed), precision=jax.lax.Precision.HIGHEST)


def _check_labels(z, labels):
    if z.ndim != 2 or labels.shape != z.shape[:1]:
        raise ValueError(f"z and labels must have shapes [B, D] and [B], got {z.shape} and {labels.shape}")


def _check_proxies(z, proxies):
    if proxies.ndim != 2 or len(proxies) < 2 or proxies.shape[1] != z.shape[1]:
        raise ValueError(f"proxies must be [C, D] with C >= 2 and D = {z.shape[1]}, got {proxies.shape}")
