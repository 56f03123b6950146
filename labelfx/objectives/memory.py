"""Contrast with negatives that are chosen from a memory by their similarity to the anchor.

The choice carries no gradient, and no gradient reaches the memory. Embeddings of any float dtype are computed on, and
the results returned, in float32, or in float64 if they are float64.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Limit, Positive, PositiveInt
from labelfx.objectives.contrastive import check_views, cosine, map_rows, normalise

__all__ = ["dual_view", "inter_image"]  # what a config may name

Threshold = Annotated[float, Limit("a number > -1; one above 1 filters nothing", lambda v: v > -1)]


def dual_view(query, key, queue, *, temperature: Positive, hardest: PositiveInt, threshold: Threshold):
    """InfoNCE of query against key and of key against query, with filtered hard negatives (Hoang et al. 2025).

    "Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering", arXiv:2501.16360. From
    its abstract: the loss treats query and key alike, the most challenging negatives by cosine similarity are selected,
    noise in the memory is filtered. Its formulas were not at hand, so chosen here: the two directions have equal
    weight, a negative is noise where its cosine reaches a threshold, and a fixed number of the hardest others are kept.
    An anchor's negatives are thus the `hardest` rows of the queue with the largest cosines below `threshold`, or fewer
    where fewer are below. The gradient reaches both views, unless the caller's keys are constants, as those of a
    momentum encoder.

    Args:
        query, key: [B, D] embeddings of the two views, not normalised; each is the positive of the other's row.
        queue: [K, D] negatives of all anchors, not necessarily normalised.
        temperature: divides the cosine similarities.
        hardest: negatives of an anchor, at most K.
        threshold: cosine from which on (>=) a negative counts as a false one.

    Returns:
        A scalar, the mean over the 2B anchors. An anchor without a negative contributes 0.

    Raises:
        ValueError: if query and key are not of one shape [B, D], or hardest > K.
    """
    check_views("query", query, "key", key)
    if hardest > len(queue):
        raise ValueError(f"hardest = {hardest}: must be at most the {len(queue)} rows of the queue")
    query, key, queue = normalise(query), normalise(key), jax.lax.stop_gradient(normalise(queue))
    positive = jnp.sum(query * key, axis=-1)

    def loss_of(anchor, positive):
        scores = cosine(anchor, queue)
        negatives, _ = jax.lax.top_k(jnp.where(scores < threshold, scores, -jnp.inf), hardest)
        return jax.nn.softplus(jax.nn.logsumexp(negatives / temperature) - positive / temperature)

    anchors = jnp.concatenate([query, key]), jnp.concatenate([positive, positive])
    return jnp.mean(map_rows(lambda rows: loss_of(*rows), anchors, len(queue), None))


def filtered_share(query, queue, *, threshold: Threshold):
    """The share of (query, queue row) pairs that `dual_view` drops as false negatives. No gradient flows through it.

    Args:
        query, queue, threshold: as for `dual_view`.

    Returns:
        A scalar. 0: the filter does nothing; 1: nothing is left to contrast with.
    """
    query, queue = jax.lax.stop_gradient((normalise(query), normalise(queue)))
    shares = map_rows(lambda row: jnp.mean(cosine(row, queue) >= threshold, dtype=row.dtype), query, len(queue), None)
    return jnp.mean(shares)


def inter_image(
    query,
    label,
    positive,
    bank,
    bank_label,
    ranks,
    *,
    temperature: Positive,
    margin: float,
    pool: PositiveInt,
):
    """Inter-image invariance with semi-hard negatives (InterCLR, Xie et al. 2022, IJCV, the authors' code).

    InfoNCE of a query against another image of its pseudo-label; the margin is taken from the positive's cosine. Its
    negatives are drawn from the `pool` rows of other pseudo-labels nearest to it: all ranks of a pool of their number
    are the hardest negatives, a pool of the whole bank gives random ones. The code takes the pool first and draws
    again for rows of the query's own label; here these do not enter the pool.

    Args:
        query: [B, D] embeddings, not normalised.
        label: int [B] pseudo-labels.
        positive: int [B], the row of the bank that is the query's positive; a query whose positive is of another
            label than its own counts as one without.
        bank: [N, D] embeddings of all images, not necessarily normalised.
        bank_label: int [N] pseudo-labels, -1 for a row that is not to be used.
        ranks: int [K], which of the pool's rows, the nearest being 0, are the negatives of every query.
        temperature: divides the cosine similarities.
        margin: negative for a less stringent decision boundary; the paper's is -0.5.
        pool: rows in a query's pool, at most N; fewer where fewer have another label.

    Returns:
        A scalar, the mean over the queries with a positive; 0 if there are none.

    Raises:
        ValueError: if query is not [B, D] with label and positive [B], or pool > N.
    """
    if query.ndim != 2 or not label.shape == positive.shape == query.shape[:1]:
        found = f"{query.shape}, {label.shape} and {positive.shape}"
        raise ValueError(f"query, label and positive must have shapes [B, D], [B] and [B], got {found}")
    if pool > len(bank):
        raise ValueError(f"pool = {pool}: must be at most the {len(bank)} rows of the bank")
    query, bank = normalise(query), jax.lax.stop_gradient(normalise(bank))
    has_positive = (label >= 0) & (label == bank_label[positive])

    def loss_of(row):
        query, label, positive = row
        scores = cosine(query, bank)
        nearest, _ = jax.lax.top_k(jnp.where((bank_label >= 0) & (bank_label != label), scores, -jnp.inf), pool)
        return jax.nn.softplus(
            jax.nn.logsumexp(nearest[ranks] / temperature) - (scores[positive] - margin) / temperature
        )

    losses = map_rows(loss_of, (query, label, positive), len(bank), None)
    return jnp.sum(losses, where=has_positive) / jnp.maximum(jnp.sum(has_positive, dtype=losses.dtype), 1)
