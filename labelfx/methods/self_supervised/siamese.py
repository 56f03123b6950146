"""Siamese networks: predict one view's embedding from the other's, without negatives or with (BYOL, Grill et al. 2020,
Algorithm 1; SimSiam, Chen & He 2021, Algorithm 1; MoCo v3, Chen, Xie & He 2021, Algorithm 1)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Head, Probability, QueryKeyObjective
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.objectives.contrastive import normalise


class SiameseState(NamedTuple):
    """The online network and its optimiser, the target network, and the steps done (int32)."""

    online: state.TrainState
    target_params: Any
    target_model_state: Any
    done: jax.Array


def siamese(
    model: Model,
    tx: optax.GradientTransformation,
    steps: int,
    *,
    augment: Augment,
    projector: Head,
    predictor: Head,
    momentum: Probability,
    final_momentum: Probability,
    objective: QueryKeyObjective,
) -> Method:
    """Queries are predictions of the online network, keys embeddings of the target network, which has no predictor.

    The target starts as the online network and follows it after each descent, by a moving average of parameters whose
    momentum goes from `momentum` to `final_momentum` by half a cosine over the run's steps. MoCo v3's code takes the
    average before the keys instead; the two differ only in which step a changing momentum belongs to.

    Each view is a forward pass of its own, in both networks, so BatchNorm normalises it by its own statistics. With
    both momenta 0 the target is the online network: its keys are the very embeddings that the predictor gets (under
    other dropout masks, where there is dropout), without a gradient. That is SimSiam, at the cost of a second forward
    pass of the same. Evals read the online network.

    One augmentation makes both views. The authors of BYOL and MoCo v3 have two on ImageNet: blur with probability 1 in
    one view and 0.1 in the other, solarize with 0 and 0.2, saturation jittered by half as much as brightness; `simclr`
    cannot do this. The schedule of `tx` is for every parameter (SimSiam's best command keeps the predictor's rate
    constant).

    A bias before a predictor that starts with BatchNorm has no gradient but rounding, which Adam scales up: `projector`
    should end without one, as `siamese_mlp` does.

    Metrics: `loss`, `positive_score` (mean cosine of query and key), `embedding_std` of the online network's embeddings
    (1 / sqrt(D) when spread evenly, 0 when collapsed), `momentum`.
    """
    online = stack(backbone=model, projector=projector, predictor=predictor)
    target = stack(backbone=model, projector=projector)

    def init(rng, batch):
        image = batch["unlabelled"]["input"]
        # The same key gives the target the parameters of the online network, in buffers of its own.
        rng_model = state.fold_in_name(rng, "model")
        target_state = state.create(target, optax.identity(), rng_model, image)
        network = state.create(online, tx, rng_model, image)
        return SiameseState(network, target_state.params, target_state.model_state, jnp.zeros((), jnp.int32))

    def step(old, batch, rng):
        image = batch["unlabelled"]["input"]
        views = [augment(key, image) for key in state.named(rng, "unlabelled/a", "unlabelled/b")]
        rngs_online = state.named(rng, "model/online/a", "model/online/b")
        rngs_target = state.named(rng, "model/target/a", "model/target/b")

        def forward(net, params, model_state, rngs):
            found = []
            for view, rng_model in zip(views, rngs, strict=True):
                outputs, model_state = net.apply({"params": params, **model_state}, view, train=True, rng=rng_model)
                found.append(outputs)
            return *found, model_state

        key_a, key_b, target_model_state = forward(target, old.target_params, old.target_model_state, rngs_target)

        def loss_fn(params):
            query_a, query_b, model_state = forward(online, params, old.online.model_state, rngs_online)
            loss = objective(query_a["predictor"], query_b["predictor"], key_a["projector"], key_b["projector"])
            return loss, (query_a, query_b, model_state)

        (loss, (query_a, query_b, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.online.params)
        network = state.descend(old.online, tx, gradient, model_state)
        decay = cosine_momentum(old.done / steps, momentum, final_momentum)
        followed = {part: network.params[part] for part in old.target_params}
        queries = jnp.concatenate([query_a["predictor"], query_b["predictor"]])
        keys = jnp.concatenate([key_b["projector"], key_a["projector"]])
        embeddings = jnp.concatenate([query_a["projector"], query_b["projector"]])
        metrics = {
            "loss": loss,
            "positive_score": jnp.mean(jnp.sum(normalise(queries) * normalise(keys), -1)),
            "embedding_std": jnp.mean(jnp.std(normalise(embeddings), 0)),
            "momentum": decay,
        }
        target_params = state.ema(old.target_params, followed, decay, where=network.moved)
        return SiameseState(network, target_params, target_model_state, old.done + 1), metrics

    return Method(init, step, lambda state: state.online.variables)


def cosine_momentum(progress: jax.Array, start: float, end: float) -> jax.Array:
    """From `start` to `end` by half a cosine while progress goes from 0 to 1 (BYOL's tau)."""
    return end - (end - start) * (1 + jnp.cos(jnp.pi * progress)) / 2
