"""Supervised training on the labelled rows alone, by any objective on what is said of them: the baseline of everything
else."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment
from labelfx.data import known
from labelfx.data.augment import augmented
from labelfx.data.weak import Supervision, columns_of, supervision
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model


def supervised(
    classifier: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    objective: Supervision,
) -> Method:
    """The objective on the classifier's outputs of `batch["labelled"]` and the columns that it names; a dense label
    moves with its picture.

    BatchNorm uses the statistics of the labelled batch; evals use the running ones. Metrics: `loss`; where the
    objective reads a class, `accuracy`.
    """

    def init(rng, batch):
        return state.create(classifier, tx, state.fold_in_name(rng, "model"), batch["labelled"]["input"])

    def step(old, batch, rng):
        rng_augment, rng_model = state.named(rng, "labelled/view", "model")
        rows, columns = augmented(augment, rng_augment, batch["labelled"])

        def loss_fn(params):
            variables = {"params": params, **old.model_state}
            outputs, model_state = classifier.apply(variables, rows, train=True, rng=rng_model)
            return supervision(objective, outputs["head"], columns), (outputs["head"], model_state)

        (loss, (logits, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        metrics = {"loss": loss, **accuracy(objective, logits, columns)}
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables)


def accuracy(objective: Supervision, logits: jax.Array, columns: dict[str, Any]) -> dict[str, jax.Array]:
    """`accuracy` of the classes said of rows, or of their pixels, where the objective reads a class and some are."""
    label = columns["label"]
    if "label" not in columns_of(objective) or label.dtype != jnp.int32 or label.shape != logits.shape[:-1]:
        return {}
    right = (jnp.argmax(logits, -1) == label) & known(label)
    return {"accuracy": jnp.sum(right) / jnp.maximum(jnp.sum(known(label)), 1)}
