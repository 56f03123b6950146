"""Fine-tuning: supervised training that starts from a backbone trained before."""

import jax
import jax.numpy as jnp
import optax

from labelfx import models, state
from labelfx.methods import Method
from labelfx.methods.supervised import supervised
from labelfx.models import Model
from labelfx.types import Augment, Fraction


def finetune(
    model: Model,
    tx: optax.GradientTransformation,
    num_classes: int,
    backbone: dict,
    *,
    augment: Augment,
    label_smoothing: Fraction,
) -> Method:
    """The step of `supervised` on every parameter, from `backbone` (its parameters and BatchNorm statistics) and a
    fresh linear head.

    Raises:
      ValueError: the backbone's parameters are not those of `config.model`.
    """
    base = supervised(model, tx, num_classes, augment=augment, label_smoothing=label_smoothing)

    def init(rng, batch):
        fresh = base.init(rng, batch).variables
        if jax.tree.map(jnp.shape, models.backbone(fresh)) != jax.tree.map(jnp.shape, backbone):
            raise ValueError("the backbone's parameters are not those of config.model")
        start = {
            kind: {part: backbone[kind] if part == "backbone" else fresh[kind][part] for part in fresh[kind]}
            for kind in fresh
        }
        return state.start(tx, jax.tree.map(jnp.asarray, start))

    return Method(init, base.step, base.variables)
