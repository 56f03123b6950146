"""SwAV: predict the cluster of one view from the other (Caron et al. 2020, NeurIPS, Algorithm 1)."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Head, NonNegativeInt, Positive, PositiveInt
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, heads, stack
from labelfx.objectives.clustering import entropies, sinkhorn, swapped_prediction
from labelfx.objectives.contrastive import normalise


def swav(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    projector: Head,
    prototypes: PositiveInt,
    temperature: Positive,
    epsilon: Positive,
    iterations: NonNegativeInt,
) -> Method:
    """Two views, one forward pass over both, assignments of each view to `prototypes` over the whole batch.

    Before each step the prototypes are scaled to unit length, as in the authors' code, so the gradient is one of free
    prototypes at unit length. BatchNorm statistics are those of both views together. Left out of the paper: crops of
    other sizes, the queue that adds past embeddings to the assignment of small batches (choose no more prototypes than
    images), and prototypes frozen in the first epoch.

    Metrics: `loss`; `entropies` of the assignments; `embedding_std` of the embeddings. Collapse shows as
    `usage_entropy` 0 (one prototype takes all) or `assignment_entropy` log K (no view differs from another).
    """
    net = stack(backbone=model, projector=projector, prototypes=heads.prototypes(features=prototypes))

    def init(rng, batch):
        return state.create(net, tx, state.fold_in_name(rng, "model"), batch["unlabelled"]["input"])

    def step(old, batch, rng):
        rng_a, rng_b, rng_model = state.named(rng, "unlabelled/a", "unlabelled/b", "model")
        image = batch["unlabelled"]["input"]
        old = old._replace(params=unit_prototypes(old.params))
        # Row by row, not view after view: a device then holds both views of its own rows, and none has to move.
        views = jax.lax.collapse(jnp.stack([augment(rng_a, image), augment(rng_b, image)], 1), 0, 2)

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, views, train=True, rng=rng_model)
            scores_a, scores_b = jnp.unstack(outputs["prototypes"].reshape(len(image), 2, -1), axis=1)
            loss = swapped_prediction(
                scores_a, scores_b, temperature=temperature, epsilon=epsilon, iterations=iterations
            )
            return loss, (scores_a, outputs["projector"], model_state)

        (loss, (scores, z, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        metrics = {
            "loss": loss,
            "embedding_std": jnp.mean(jnp.std(normalise(z), 0)),
            **entropies(sinkhorn(scores, epsilon=epsilon, iterations=iterations)),
        }
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables)


def unit_prototypes(params: dict) -> dict:
    """The parameters with prototypes, the columns of their kernel, of unit length."""
    return params | {"prototypes": {"kernel": normalise(params["prototypes"]["kernel"].T).T}}
