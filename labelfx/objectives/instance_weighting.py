"""Contrast with weighted and generated negatives (DCLR, Zhou et al. 2022, ACL).

A second, frozen model says which negatives are likely false; they get weight 0. Noise that ascends the loss adds
negatives where the batch has none. Embeddings of any float dtype are computed on, and the results returned, in float32,
or in float64 if they are float64.
"""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import NonNegativeInt, Positive
from labelfx.objectives.contrastive import at_least_float32, check_views, cosine, normalise

__all__ = ["dclr"]  # what a config may name


def dclr(query, key, noise, weights, *, temperature: Positive):
    """InfoNCE with weighted in-batch negatives and noise negatives (DCLR, Zhou et al. 2022, ACL).

    As in the paper a negative of weight 0 leaves the denominator; the authors' code multiplies its score by 0, which
    keeps e^0 there, and replaces the cross-entropy by a binary one of every entry.

    Args:
        query, key: [B, D] embeddings of the two views, not normalised; key[i] is the positive of query[i].
        noise: [K, D] negatives of all queries, as from `noise_negatives`. No gradient reaches them.
        weights: float [B, B] of key j as a negative of query i, as from `instance_weights`; its diagonal is not read.
        temperature: divides the cosine similarities; the paper's is 0.05.

    Returns:
        A scalar, the mean over the B queries.

    Raises:
        ValueError: if query and key are not of one shape [B, D].
    """
    check_views("query", query, "key", key)
    query, key, noise = normalise(query), normalise(key), jax.lax.stop_gradient(normalise(noise))
    scores = cosine(query, jnp.concatenate([key, noise])) / temperature
    weights = jnp.where(jnp.eye(len(key), dtype=bool), 0, weights.astype(scores.dtype))
    weights = jnp.pad(weights, ((0, 0), (0, len(noise))), constant_values=1)
    log_negative_sum = jax.nn.logsumexp(scores, axis=-1, b=weights)
    return jnp.mean(jax.nn.softplus(log_negative_sum - jnp.diagonal(scores)))


def instance_weights(query, key, *, threshold: float):
    """Weights for `dclr` from a complementary model: 0 where its cosine reaches the threshold (>=), 1 elsewhere.

    Args:
        query, key: [B, D] embeddings of the batch's two views by that model, such as a trained one that stays fixed.
        threshold: the paper's phi, 0.9 or 0.85.

    Returns:
        [B, B]. No gradient flows through it.
    """
    scores = jax.lax.stop_gradient(cosine(normalise(query), normalise(key)))
    return (scores < threshold).astype(scores.dtype)


def noise_negatives(query, noise, *, temperature: Positive, step_size: Positive, steps: NonNegativeInt):
    """Moves noise to where it is hard: normalised gradient ascent on the non-uniformity loss.

    The loss is the mean over queries of log sum_k e^{s_k / temperature} less the positive's score, which does not
    depend on the noise. The authors' code has the batch's keys in that sum too, 4 steps of 1e-3 and noise from N(0, I).

    Args:
        query: [B, D] embeddings, not normalised.
        noise: [K, D], not normalised.
        temperature: divides the cosine similarities.
        step_size: length of a step of each row.
        steps: their number, a Python integer.

    Returns:
        [K, D]. No gradient flows through it.
    """
    query, noise = jax.lax.stop_gradient((normalise(query), at_least_float32(noise)))

    def non_uniformity(noise):
        return jnp.mean(jax.nn.logsumexp(cosine(query, normalise(noise)) / temperature, axis=-1))

    for _ in range(steps):
        noise = noise + step_size * normalise(jax.grad(non_uniformity)(noise))
    return noise
