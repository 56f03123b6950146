"""Supervised training on the labelled rows alone, by any objective on what is said of them: the baseline of everything
else."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Mixing
from labelfx.data import known
from labelfx.data.augment import augmented
from labelfx.data.mixing import blend, blended
from labelfx.data.weak import Supervision, columns_of, supervision
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, apply_together, pooled


def supervised(
    classifier: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    objective: Supervision,
    mix: Mixing | None = None,
) -> Method:
    """The objective on the classifier's outputs of `batch["labelled"]` and the columns that it names; a dense label
    moves with its picture.

    BatchNorm uses the statistics of the labelled batch; evals use the running ones. Metrics: `loss`; where the
    objective reads a class, `accuracy`.

    With a `mix` the rows of the batch are mixed with each other once they are augmented. The objective, and the
    accuracy, is then that of the rows' columns and that of their partners' columns, by the share of each: of
    cross-entropy, which is linear in its target, exactly the loss of the mixed target, where every row has one. An
    objective that reads `mixed_logits` is given both, the rows as they are and, in the same pass, the mixed ones.

    Raises:
      ValueError: rows are to be mixed, and the objective reads whole bags; or they are not, and it reads mixed ones.
    """
    ranks = "mixed_logits" in columns_of(objective)
    if ranks and not mix:
        raise ValueError("mix: the objective compares rows with mixed ones; take mixup, or another way to mix")
    if mix and "bag" in columns_of(objective):
        raise ValueError("mix: the objective reads whole bags, whose rows are not to be mixed with others")

    def init(rng, batch):
        return state.create(classifier, tx, state.fold_in_name(rng, "model"), batch["labelled"]["input"])

    def step(old, batch, rng):
        rng_augment, rng_mix, rng_model = state.named(rng, "labelled/view", "labelled/mix", "model")
        rows, columns = augmented(augment, rng_augment, batch["labelled"])
        drawn = mix(rng_mix, len(rows), rows.shape[1:]) if mix else None
        mixed = [blend(drawn, rows)] if drawn else []
        views = [rows, *mixed] if ranks or not drawn else mixed

        def told(of):
            return blended(drawn, of, columns) if drawn and not ranks else of(columns)

        def loss_fn(params):
            variables = {"params": params, **old.model_state}
            outputs, model_state = apply_together(classifier, variables, views, train=True, rng=rng_model)
            logits, *others = jnp.split(outputs["head"], len(views))
            seen = seen_of(outputs["backbone"][: len(rows)], views[0], params)
            seen |= {"mixed_logits": others[0], "partner": drawn.partner} if drawn and ranks else {}
            return told(lambda columns: supervision(objective, logits, columns | seen)), (logits, model_state)

        (loss, (logits, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        metrics = {"loss": loss, **told(lambda columns: accuracy(objective, logits, columns))}
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables)


def seen_of(outputs: jax.Array, rows: jax.Array, params: dict[str, Any]) -> dict[str, Any]:
    """What objectives may read of a network beside its logits: the `features` of its backbone, pooled, its `positions`,
    not pooled, and the parameters of its `head`."""
    return {"features": pooled(outputs, rows), "positions": outputs, "head": params["head"]}


def accuracy(objective: Supervision, logits: jax.Array, columns: dict[str, Any]) -> dict[str, jax.Array]:
    """`accuracy` of the classes said of rows, or of their pixels, where the objective reads a class and some are."""
    if "label" not in columns_of(objective):
        return {}
    label = columns["label"]
    if label.dtype != jnp.int32 or label.shape != logits.shape[:-1]:
        return {}
    right = (jnp.argmax(logits, -1) == label) & known(label)
    return {"accuracy": jnp.sum(right) / jnp.maximum(jnp.sum(known(label)), 1)}
