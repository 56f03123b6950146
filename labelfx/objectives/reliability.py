"""Reliability balancing: anchors in the space of features correct what a classifier is not sure of (ARBEx)."""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import NonNegative
from labelfx.objectives._rows import check_rows, mean_of_said
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.contrastive import normalise

__all__ = ["reliability_balancing"]  # what a config may name


def reliability_balancing(
    logits: jax.Array,
    label: jax.Array,
    features: jax.Array,
    head: dict[str, jax.Array],
    *,
    centre: NonNegative,
    spread: NonNegative,
) -> jax.Array:
    """ARBEx's loss of the classifier `anchored`: cross-entropy, features near an anchor of their class, anchors of
    different classes apart (Wasi et al. 2023, arXiv 2305.01486, "Reliability Balancing").

    cross-entropy + centre E[min_k |h - a_yk|] - spread E[|a_ck - a_dl|^2], the last mean over all pairs of anchors of
    different classes; h and a have unit length, so that it is at most 4. In the authors' code neither has, and the
    spread is without bound. Theirs is a sum over anchors of the same number k alone, the centre's rows are weighted by
    confidence, and both terms are divided by sqrt(F) and grow with the steps done.

    Args:
      logits: [B, C], of `models.classifiers.anchored`; of any float dtype; computed on in float32 or float64.
      label: int32 [B], from 0 to C - 1, or -1 for unknown.
      features: [B, F], of the backbone.
      head: parameters of the head, of which `anchors` is [C, K, F].

    Returns:
      A scalar; means over rows are of those with a label, 0 without any.

    Raises:
      ValueError: shapes differ, or the head has no anchors.
    """
    logits = check_rows(logits, {"label": label}, entries=False)
    if "anchors" not in head:
        raise ValueError("reliability_balancing: the head has no anchors; take config.head = anchored")
    anchors = normalise(head["anchors"])
    own = jnp.take_along_axis(distances(features, anchors), jnp.maximum(label, 0)[:, None, None], axis=1)
    near = mean_of_said(jnp.min(own[:, 0], axis=-1), label >= 0).astype(logits.dtype)
    classes = len(anchors)
    total, of_classes = jnp.sum(anchors, (0, 1)), jnp.sum(anchors, 1)  # unit vectors: the mean of |a - b|^2 is 2 - 2 ab
    products = jnp.sum(total**2) - jnp.sum(of_classes**2)
    apart = 2 - 2 * products / (classes * (classes - 1) * anchors.shape[1] ** 2)
    return cross_entropy(logits, label, label_smoothing=0.0) + centre * near - spread * apart.astype(logits.dtype)


def distances(features: jax.Array, anchors: jax.Array) -> jax.Array:
    """Of features [B, F], brought to unit length, from unit anchors [C, K, F]: [B, C, K], with a gradient of 0 at 0."""
    square = 2 - 2 * jnp.einsum("bf,ckf->bck", normalise(features), anchors, precision=jax.lax.Precision.HIGHEST)
    return jnp.where(square > 1e-12, jnp.sqrt(jnp.where(square > 1e-12, square, 1)), 0)
