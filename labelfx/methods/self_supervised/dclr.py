"""DCLR: contrast without the negatives that a trained model finds similar, and with generated ones (Zhou et al. 2022,
ACL)."""

import jax
import jax.numpy as jnp
import optax

from labelfx import models, objectives
from labelfx.config.annotations import Augment, Head, NonNegativeInt, Positive
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.self_supervised.contrastive import same_class
from labelfx.models import Model, stack
from labelfx.objectives.contrastive import cosine, diagnostics, normalise


def dclr(
    model: Model,
    tx: optax.GradientTransformation,
    backbone: dict,
    *,
    augment: Augment,
    projector: Head,
    temperature: Positive,
    threshold: float,
    noise_ratio: Positive,
    noise_steps: NonNegativeInt,
    noise_step_size: Positive,
) -> Method:
    """The objective `dclr` on the projections of two views of `batch["unlabelled"]`: of sentences, two dropout masks.

    The complementary model is `backbone`, a trained one (the paper's: SimCSE) that stays as it is: negatives whose
    cosine under it reaches `threshold` get weight 0. It sees the rows without augmentation and dropout. Noise is drawn
    from N(0, I) at every step, `noise_ratio` times the batch, and shared by its rows; it takes `noise_steps` steps of
    length `noise_step_size` up the contrastive loss. The paper starts from BERT, here parameters start afresh.

    Published: temperature 0.05, threshold 0.9 or 0.85, noise ratio 1 to 5, 4 steps of 1e-3.

    Metrics: `loss`, `positive_score`, `negative_score` and `embedding_std` as in `diagnostics`, `noise_score` (mean
    cosine with the noise), `punished` (share of negatives of weight 0), `false_negatives` as in `contrastive`.

    Raises:
      ValueError: the backbone's parameters are not those of `config.model`.
    """
    net, complementary = stack(backbone=model, projector=projector), models.backbone(backbone)

    def init(rng, batch):
        image = batch["unlabelled"]["input"]
        fresh = state.create(net, tx, state.fold_in_name(rng, "model"), image)
        if jax.tree.map(jnp.shape, complementary) != jax.tree.map(jnp.shape, models.backbone(fresh.variables)):
            raise ValueError("the backbone's parameters are not those of config.model")
        return fresh

    def step(old, batch, rng):
        rng_a, rng_b, rng_model, rng_noise = state.named(rng, "unlabelled/a", "unlabelled/b", "model", "noise")
        image = batch["unlabelled"]["input"]
        views = jax.lax.collapse(jnp.stack([augment(rng_a, image), augment(rng_b, image)], 1), 0, 2)
        reference, _ = model.apply(batch["frozen"], state.to_float(image), train=False)
        weights = objectives.instance_weights(reference, reference, threshold=threshold)

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, views, train=True, rng=rng_model)
            query, key = jnp.unstack(outputs["projector"].reshape(len(image), 2, -1), axis=1)
            noise = jax.random.normal(rng_noise, (round(noise_ratio * len(image)), query.shape[1]), query.dtype)
            noise = objectives.noise_negatives(
                query, noise, temperature=temperature, step_size=noise_step_size, steps=noise_steps
            )
            loss = objectives.dclr(query, key, noise, weights, temperature=temperature)
            return loss, (query, key, noise, model_state)

        (loss, (query, key, noise, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        health = diagnostics(query, key)
        metrics = {
            "loss": loss,
            "false_negatives": same_class(batch["audit"]["unlabelled"]["label"]),
            **{name: health[name] for name in ("positive_score", "negative_score", "embedding_std")},
            "noise_score": jnp.mean(cosine(normalise(query), normalise(noise))),
            "punished": jnp.mean(weights == 0, where=~jnp.eye(len(weights), dtype=bool)),
        }
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables, frozen=complementary)
