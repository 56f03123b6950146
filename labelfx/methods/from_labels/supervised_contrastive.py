"""SupCon: two augmented views of labelled images, all of one class positives (Khosla et al. 2020, NeurIPS)."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Head, Positive
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.objectives.contrastive import normalise, sup_con


def supervised_contrastive(
    model: Model,
    tx: optax.GradientTransformation,
    num_classes: int,
    *,
    augment: Augment,
    projector: Head,
    temperature: Positive,
    base_temperature: Positive,
) -> Method:
    """Two views of `batch["labelled"]`, one forward pass over both, `sup_con` on their projections.

    The paper then trains a linear classifier on the frozen features: that is the eval `linear_probe`. BatchNorm
    statistics are those of both views together. Metrics: `loss`, and `class_scores` of the projections.
    """
    net = stack(backbone=model, projector=projector)

    def init(rng, batch):
        return state.create(net, tx, state.fold_in_name(rng, "model"), batch["labelled"]["input"])

    def step(old, batch, rng):
        rng_a, rng_b, rng_model = state.named(rng, "labelled/a", "labelled/b", "model")
        image, label = batch["labelled"]["input"], batch["labelled"]["label"]
        # Row by row, not view after view: a device then holds both views of its own rows, and none has to move.
        views = jax.lax.collapse(jnp.stack([augment(rng_a, image), augment(rng_b, image)], 1), 0, 2)

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, views, train=True, rng=rng_model)
            z = outputs["projector"]
            loss = sup_con(
                z.reshape(len(image), 2, -1), label, temperature=temperature, base_temperature=base_temperature
            )
            return loss, (z, model_state)

        (loss, (z, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        metrics = {"loss": loss, **class_scores(z, jnp.repeat(label, 2), num_classes)}
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables)


def class_scores(z: jax.Array, labels: jax.Array, num_classes: int) -> dict[str, jax.Array]:
    """How well embeddings tell classes apart, in memory linear in their number.

    Args:
      z: [N, D], not normalised.
      labels: int [N], from 0 to num_classes - 1.

    Returns:
      A dict of scalars: `positive_score` and `negative_score`, the mean cosine similarity of different rows of one
      class and of rows of two, 0 where there are none; `embedding_std` as in
      `labelfx.objectives.contrastive.diagnostics`: 0 when collapsed.
    """
    z = normalise(z)
    member = jax.nn.one_hot(labels, num_classes, dtype=z.dtype)
    sums = jnp.matmul(member.T, z, precision=jax.lax.Precision.HIGHEST)  # the scores of all pairs are their products
    rows = jnp.array(len(z), z.dtype)
    pairs = jnp.sum(jnp.sum(member, axis=0) ** 2)
    within = jnp.sum(sums**2)
    return {
        "positive_score": (within - jnp.sum(z**2)) / jnp.maximum(pairs - rows, 1),
        "negative_score": (jnp.sum(jnp.sum(sums, axis=0) ** 2) - within) / jnp.maximum(rows**2 - pairs, 1),
        "embedding_std": jnp.mean(jnp.std(z, axis=0)),
    }
