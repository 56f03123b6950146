"""Fine-tuning: supervised training that starts from a backbone trained before."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment
from labelfx.data.weak import Supervision
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.from_labels.supervised import supervised
from labelfx.models import Model


def finetune(
    classifier: Model,
    tx: optax.GradientTransformation,
    backbone: dict,
    *,
    augment: Augment,
    objective: Supervision,
    head: Literal["fresh", "kept"],
) -> Method:
    """The step of `supervised` on every parameter, from the parameters and BatchNorm statistics of `backbone`, with a
    fresh head or the one that was trained there.

    Raises:
      ValueError: the backbone's parameters are not those of `config.model`, or no head is there to keep.
    """
    base = supervised(classifier, tx, augment=augment, objective=objective)
    if head == "kept" and "head" not in backbone["params"]:
        raise ValueError("head = 'kept': the run that it starts from has trained no classifier")
    kept = ("backbone",) if head == "fresh" else ("backbone", "head")

    def init(rng, batch):
        return state.start(tx, start_from(base.init(rng, batch).variables, backbone, kept))

    return Method(init, base.step, base.variables)


def start_from(fresh: dict, trained: dict, kept: tuple[str, ...]) -> dict:
    """The variables `fresh` of a stack, with the parts `kept` ("backbone", "head") as they are in `trained`.

    Raises:
      ValueError: they have other shapes.
    """
    start = {
        kind: parts | {part: tree for part, tree in trained.get(kind, {}).items() if part in kept}
        for kind, parts in fresh.items()
    }
    if jax.tree.map(jnp.shape, start) != jax.tree.map(jnp.shape, fresh):
        raise ValueError("the backbone's parameters are not those of config.model")
    return jax.tree.map(jnp.asarray, start)
