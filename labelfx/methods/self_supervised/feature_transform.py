"""MoCo with harder positives and more diverse negatives by feature transformation (Zhu et al. 2021, ICCV)."""

from typing import Any

import jax
import optax

from labelfx import objectives
from labelfx.config.annotations import Augment, Fraction, Head, Positive, PositiveInt
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.self_supervised.moco import momentum_contrast
from labelfx.models import Model
from labelfx.objectives.contrastive import normalise, queue_cross_entropy


def feature_transform(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    projector: Head,
    temperature: Positive,
    momentum: Fraction,
    queue_size: PositiveInt,
    positive_alpha: Positive,
    negative_alpha: Positive,
) -> Method:
    """A step of `moco` whose loss sees its scores through `labelfx.objectives.feature_transform`.

    Each step draws 1 + Beta(positive_alpha, positive_alpha), by which it extrapolates the positives, and
    Beta(negative_alpha, negative_alpha), by which it mixes the queue with itself in another order. The paper has 2 and
    1.6. The queue takes the keys as they are.

    Metrics: those of `moco`, all but `loss` of the embeddings before the transform.

    Raises:
      ValueError: `queue_size` is not a multiple of the unlabelled batch.
    """
    init, advance = momentum_contrast(
        model, tx, augment=augment, projector=projector, momentum=momentum, queue_size=queue_size
    )

    def step(old, batch, rng):
        mix = draw(rng, old.queue, positive_alpha, negative_alpha)

        def loss_fn(query, key, queue):
            mixed = objectives.feature_transform(normalise(query), normalise(key), queue, **mix)
            return queue_cross_entropy(*mixed, temperature=temperature), {}

        new, _, metrics = advance(old, batch, rng, loss_fn)
        return new, metrics

    return Method(init, step, lambda state: state.query.variables)


def draw(rng: jax.Array, queue: jax.Array, positive_alpha: float, negative_alpha: float) -> dict[str, Any]:
    """What the transform draws at a step, by the names that it takes it by."""
    rng_positive, rng_negative, rng_permutation = state.named(rng, "mix/positive", "mix/negative", "mix/permutation")
    return {
        "positive_lambda": 1 + jax.random.beta(rng_positive, positive_alpha, positive_alpha, dtype=queue.dtype),
        "negative_lambda": jax.random.beta(rng_negative, negative_alpha, negative_alpha, dtype=queue.dtype),
        "permutation": jax.random.permutation(rng_permutation, len(queue)),
    }
