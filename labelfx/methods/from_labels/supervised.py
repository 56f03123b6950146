"""Supervised training on the labelled images alone: the baseline of everything else."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Fraction
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.models.heads import linear
from labelfx.objectives.classification import cross_entropy


def supervised(
    model: Model,
    tx: optax.GradientTransformation,
    num_classes: int,
    *,
    augment: Augment,
    label_smoothing: Fraction,
) -> Method:
    """Cross-entropy on `batch["labelled"]`, linear head on the backbone's features.

    BatchNorm uses the statistics of the labelled batch; evals use the running ones. Metrics: `loss`, `accuracy`.
    """
    net = stack(backbone=model, head=linear(features=num_classes))

    def init(rng, batch):
        return state.create(net, tx, state.fold_in_name(rng, "model"), batch["labelled"]["image"])

    def step(old, batch, rng):
        rng_augment, rng_model = state.named(rng, "labelled/view", "model")
        image = augment(rng_augment, batch["labelled"]["image"])
        label = batch["labelled"]["label"]

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, image, train=True, rng=rng_model)
            return cross_entropy(outputs["head"], label, label_smoothing=label_smoothing), (
                outputs["head"],
                model_state,
            )

        (loss, (logits, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == label)
        return state.descend(old, tx, gradient, model_state), {"loss": loss, "accuracy": accuracy}

    return Method(init, step, lambda state: state.variables)
