"""Scores of pairs: how alike two views of one image are, and views of two images."""

from typing import Any

import jax
import numpy as np

from labelfx.config.annotations import Augment
from labelfx.models import Model, pooled, stack
from labelfx.objectives.contrastive import normalise

SCORED = 2048  # images, which have four million negative pairs
BINS = np.linspace(-1, 1, 51)


def score_distribution(
    model: Model, projector: Model | None, variables: Any, test_inputs: Any, seed: int, *, augment: Augment
) -> dict[str, Any]:
    """Distribution of the scores (cosines) of positive and of negative pairs (Zhu et al. 2021, ICCV).

    Each test image is seen in two augmented views, by the network in evaluation mode. A positive pair is the two views
    of an image, a negative pair the first view of one and the second view of another. Of more than 2,048 test images as
    many are taken, evenly spaced. `python -m labelfx.scores` draws the result.

    Args:
      model, projector: the backbone and, where the method trained one, the network that its loss saw it through.
      variables: of the method: `{"params": {"backbone": ..., "projector": ...}, ...}`.
      test_inputs: uint8 [Q, H, W, C], Q > 1.
      seed: of the augmentation.
      augment: makes the views.

    Returns:
      positive_mean, positive_std, negative_mean, negative_std; positive_counts and negative_counts, histograms of 50
      bins from -1 to 1; embeddings ("projector" or "backbone"), split, n (images).

    Raises:
      ValueError: there is one test image only, so that there are no negatives.
    """
    if len(test_inputs) < 2:
        raise ValueError("score_distribution needs at least 2 test images: with one there are no negative pairs")
    rows = np.linspace(0, len(test_inputs) - 1, min(len(test_inputs), SCORED)).astype(np.int64)
    seen = "projector" if projector else "backbone"
    network = stack(backbone=model, projector=projector) if projector else stack(backbone=model)

    @jax.jit
    def embed(variables, images, rng):
        rows = augment(rng, images)
        outputs, _ = network.apply(variables, rows, train=False)
        return normalise(pooled(outputs[seen], rows))

    def view(rng, size=256):
        padded = np.resize(rows, -(-len(rows) // size) * size).reshape(-1, size)  # so that it is compiled once
        keys = jax.random.split(rng, len(padded))
        found = [np.asarray(embed(variables, test_inputs[some], key)) for some, key in zip(padded, keys, strict=True)]
        return np.concatenate(found)[: len(rows)]

    first, second = map(view, jax.random.split(jax.random.key(seed)))
    scores = np.clip(first @ second.T, -1, 1)
    positive, negative = np.diagonal(scores), scores[~np.eye(len(scores), dtype=bool)]
    return {
        "positive_mean": float(positive.mean(dtype=np.float64)),
        "positive_std": float(positive.std(dtype=np.float64)),
        "negative_mean": float(negative.mean(dtype=np.float64)),
        "negative_std": float(negative.std(dtype=np.float64)),
        "positive_counts": np.histogram(positive, BINS)[0].tolist(),
        "negative_counts": np.histogram(negative, BINS)[0].tolist(),
        "embeddings": seen,
        "split": "test",
        "n": len(rows),
    }
