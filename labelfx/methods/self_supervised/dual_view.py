"""MoCo with a loss of both views and filtered hard negatives (Hoang et al. 2025, arXiv:2501.16360)."""

import optax

from labelfx.config.annotations import Augment, Fraction, Head, Positive, PositiveInt
from labelfx.methods import Method
from labelfx.methods.self_supervised.moco import momentum_contrast
from labelfx.models import Model
from labelfx.objectives import memory


def dual_view(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    projector: Head,
    temperature: Positive,
    momentum: Fraction,
    queue_size: PositiveInt,
    hardest: PositiveInt,
    threshold: memory.Threshold,
) -> Method:
    """A step of `moco` with `labelfx.objectives.memory.dual_view`, which says what is the paper's.

    Metrics: those of `moco`, and `filtered`, the share of the queue that reaches the threshold: near 1 there is nothing
    left to contrast with, as with an untrained network whose embeddings all agree.

    Raises:
      ValueError: `queue_size` is not a multiple of the unlabelled batch, or `hardest` is more than `queue_size`.
    """
    init, advance = momentum_contrast(
        model, tx, augment=augment, projector=projector, momentum=momentum, queue_size=queue_size
    )

    def step(old, batch, rng):
        def loss_fn(query, key, queue):
            loss = memory.dual_view(query, key, queue, temperature=temperature, hardest=hardest, threshold=threshold)
            return loss, {"filtered": memory.filtered_share(query, queue, threshold=threshold)}

        new, _, metrics = advance(old, batch, rng, loss_fn)
        return new, metrics

    return Method(init, step, lambda state: state.query.variables)
