"""Two modalities: the distribution of similarities over the batch matches that of the labels."""

import jax
import jax.numpy as jnp

from labelfx.objectives.contrastive import check_views, cosine, normalise
from labelfx.types import Positive

__all__ = ["similarity_distribution_matching"]  # what a config may name


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
