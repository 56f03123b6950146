"""Contrastive learning of two views, with any two-view objective (SimCLR, Chen et al. 2020, Algorithm 1)."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Head, Objective
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.objectives.contrastive import diagnostics


def contrastive(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    projector: Head,
    objective: Objective,
) -> Method:
    """Two augmented views of `batch["unlabelled"]`, one forward pass over both, the objective on their projections.

    BatchNorm statistics are those of both views together. Metrics: `loss`, the objective's `diagnostics`, and
    `false_negatives`, the share of negative pairs of one true class (0 where no class is known).
    """
    net = stack(backbone=model, projector=projector)
    settings = {k: v for k, v in objective.keywords.items() if k in ("temperature", "tau_plus", "beta", "block_size")}

    def init(rng, batch):
        return state.create(net, tx, state.fold_in_name(rng, "model"), batch["unlabelled"]["input"])

    def step(old, batch, rng):
        rng_a, rng_b, rng_model = state.named(rng, "unlabelled/a", "unlabelled/b", "model")
        image = batch["unlabelled"]["input"]
        # Row by row, not view after view: a device then holds both views of its own rows, and none has to move.
        views = jax.lax.collapse(jnp.stack([augment(rng_a, image), augment(rng_b, image)], 1), 0, 2)

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, views, train=True, rng=rng_model)
            z_a, z_b = jnp.unstack(outputs["projector"].reshape(len(image), 2, -1), axis=1)
            return objective(z_a, z_b), (z_a, z_b, model_state)

        (loss, (z_a, z_b, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        metrics = {
            "loss": loss,
            "false_negatives": same_class(batch["audit"]["unlabelled"]["label"]),
            **diagnostics(z_a, z_b, **settings),
        }
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables)


def same_class(label: jax.Array) -> jax.Array:
    """Share of pairs of one class among those of different rows with known classes. label: int32 [B], -1 unknown; of
    several labels, int8 [B, C], pairs that share a positive."""
    if label.ndim > 1:
        positive = (label > 0).astype(jnp.float32)
        shared = (positive @ positive.T > 0) & ~jnp.eye(len(label), dtype=bool)
        known = jnp.sum((label >= 0).any(1), dtype=jnp.float32)
        return jnp.sum(shared, dtype=jnp.float32) / jnp.maximum(known * (known - 1), 1)
    known = jnp.sum(label >= 0, dtype=jnp.float32)
    ordered = jnp.sort(label)  # counts rows of a class without a matrix of pairs
    others = jnp.searchsorted(ordered, label, side="right") - jnp.searchsorted(ordered, label) - 1
    same = jnp.sum(others, where=label >= 0, dtype=jnp.float32)
    return same / jnp.maximum(known * (known - 1), 1)
