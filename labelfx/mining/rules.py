"""Selection rules: which of the candidates that a search found become each query's negatives.

A rule is a function `(rng, found, count) -> positions`, int [Q, count] among a query's candidates, -1 where it leaves
fewer; its keyword-only parameters are the keys of `selection` in a configuration and flags of `labelfx.mine`. The
formulas are those of `labelfx.mining.negatives`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from labelfx.config.annotations import NonNegative, Probability, TwoOrMore
from labelfx.mining import negatives
from labelfx.mining.search import top_k
from labelfx.objectives.contrastive import normalise


class Found(NamedTuple):
    """What a search found for Q queries among the N rows of an index.

    queries: float [Q, D].
    index: float [N, D].
    rows: int32 [Q, C], the candidates, rows of the index, the most similar first; -1 for want of one.
    scores: float [Q, C], -inf for candidates that must not be chosen, such as positives.
    positive_scores: float [Q], of each query's positive.
    """

    queries: Any
    index: Any
    rows: jax.Array
    scores: jax.Array
    positive_scores: jax.Array


def top(rng, found, count):
    """The most similar."""
    return negatives.hardest(found.scores, count)


def simans(rng, found, count, *, a: NonNegative, b: float):
    """A sample of those about as similar as the positive (SimANS, Zhou et al. 2022); with a = 0, of all."""
    return negatives.sample(rng, negatives.simans_log_weights(found.positive_scores, found.scores, a=a, b=b), count)


def margin_pos(rng, found, count, *, margin: NonNegative):
    """The most similar that score below the positive less a margin (NV-Retriever, Moreira et al. 2024)."""
    keep = negatives.margin_pos(found.positive_scores, found.scores, margin=margin)
    return negatives.hardest(jnp.where(keep, found.scores, -jnp.inf), count)


def perc_pos(rng, found, count, *, percentage: Probability):
    """The most similar that score below a share of the positive (NV-Retriever, Moreira et al. 2024)."""
    keep = negatives.perc_pos(found.positive_scores, found.scores, percentage=percentage)
    return negatives.hardest(jnp.where(keep, found.scores, -jnp.inf), count)


def runner_up(rng, found, count, *, first: Probability, last: Probability):
    """A sample of those from one percentile of the index to another (ConFit v2, Yu et al. 2025)."""
    keep = negatives.runner_up(found.scores.shape[-1], len(found.index), first=first, last=last)
    return negatives.sample(rng, _alike(keep, found.scores), count)


def second_cluster(rng, found, count, *, clusters: TwoOrMore):
    """A sample of those in the cluster second nearest to the query (ClusterNS, Deng et al. 2023, section 3.2).

    Clusters are those of k-means over the index, its rows L2-normalised. Those nearest of all are likely false. The
    paper contrasts with the centroid itself, and with nothing of the cluster.
    """
    from sklearn.cluster import MiniBatchKMeans

    rng_means, rng = jax.random.split(rng)
    index = jax.device_get(normalise(found.index))
    seed = int(jax.random.bits(rng_means, dtype=jnp.uint32))
    centroids = MiniBatchKMeans(clusters, random_state=seed, n_init=1).fit(index).cluster_centers_
    _, own = top_k(index, centroids, 1, similarity="cosine")
    _, nearest = top_k(found.queries, centroids, 2, similarity="cosine")
    return negatives.sample(rng, _alike(own[found.rows, 0] == nearest[:, 1:], found.scores), count)


def percentile(rng, found, count, *, tau: Probability):
    """The hardest among the easiest share `tau` of the candidates (Learnable PINs, Nagrani et al. 2018, ECCV).

    0 would leave none, and 1 is `top`. There, candidates are the others of a random batch.
    """
    candidates = found.scores.shape[-1]
    keep = jnp.arange(candidates)[None] >= candidates - int(tau * candidates)
    return negatives.hardest(jnp.where(keep, found.scores, -jnp.inf), count)


def _alike(keep, scores):
    """Log weights of a draw from those that a rule keeps, each as likely as another."""
    return jnp.where(keep & (scores > -jnp.inf), 0.0, -jnp.inf)
