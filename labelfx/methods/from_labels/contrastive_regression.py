"""ConR: regression from imbalanced targets, with features contrasted by target and prediction (Keramati et al. 2024,
ICLR)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from labelfx.config.annotations import Augment, NonNegative, Positive
from labelfx.data import known
from labelfx.data.labels import target_scale
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.models.heads import linear
from labelfx.objectives.contrastive import normalise
from labelfx.objectives.regression import conr


def contrastive_regression(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    weight: NonNegative,
    window: NonNegative,
    temperature: Positive,
    distance_scale: NonNegative,
) -> Method:
    """Mean absolute error plus `weight` times `conr`, both on two views of `batch["labelled"]`; 0 is plain regression.

    The labels are targets, integers from 0 up. A linear regressor on the backbone's features predicts them less their
    mean, over their standard deviation, of all labelled rows (`target_scale`): the unit of `window`, `distance_scale`
    and the error, where the authors' are years of age: window 1, distance_scale 0.01, weight 4. A negative counts more
    for anchors with a rare target: by 1 / sqrt(labelled targets within the window), scaled to a mean of 1, in place of
    the authors' counts of equal integers. Their code takes the error of a third view; here it is that of the two.

    BatchNorm statistics are those of both views together. Metrics: `loss`, `error`, `contrast` (before its weight), and
    `embedding_std` of the features: 0 when collapsed.
    """
    net = stack(backbone=model, regressor=linear(features=1))

    def init(rng, batch):
        return state.create(net, tx, state.fold_in_name(rng, "model"), batch["labelled"]["input"])

    def refresh(variables, source, rng, progress):
        mean, scale = target_scale(source.labels)
        target = ((source.labels - mean) / scale).astype(np.float32)
        said = known(source.labels)
        ordered = np.sort(target[said])
        near = np.searchsorted(ordered, target + window, "right") - np.searchsorted(ordered, target - window)
        rarity = 1 / np.sqrt(np.maximum(near, 1))
        return {"target": target, "rarity": (rarity / rarity[said].mean()).astype(np.float32)}

    def step(old, batch, rng):
        rng_a, rng_b, rng_model = state.named(rng, "labelled/a", "labelled/b", "model")
        image = batch["labelled"]["input"]
        # Row by row, not view after view: a device then holds both views of its own rows, and none has to move.
        views = jax.lax.collapse(jnp.stack([augment(rng_a, image), augment(rng_b, image)], 1), 0, 2)
        target, rarity = (jnp.repeat(batch["labelled"][name], 2) for name in ("target", "rarity"))

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, views, train=True, rng=rng_model)
            z, prediction = outputs["backbone"], outputs["regressor"][:, 0]
            error = jnp.mean(jnp.abs(prediction - target))
            contrast = conr(
                z, target, prediction, rarity, window=window, temperature=temperature, distance_scale=distance_scale
            )
            return error + weight * contrast, (error, contrast, z, model_state)

        (loss, (error, contrast, z, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        spread = jnp.mean(jnp.std(normalise(z), axis=0))
        metrics = {"loss": loss, "error": error, "contrast": contrast, "embedding_std": spread}
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables, refresh)
