"""Deep metric learning from labels, with mixing of embeddings (Metric Mix, Venkataramanan et al. 2022, ICLR)."""

import functools
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from labelfx.config import parameters
from labelfx.config.annotations import Augment, Head, NonNegative, NonNegativeInt, Part
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.from_labels.supervised_contrastive import class_scores
from labelfx.models import Model, stack
from labelfx.objectives.contrastive import cosine, normalise
from labelfx.objectives.metric_learning import (
    metric_mix,
    mixed_multi_similarity,
    mixed_proxy_anchor,
    multi_similarity,
    proxy_anchor,
)

MIXED: dict[Callable, Callable] = {multi_similarity: mixed_multi_similarity, proxy_anchor: mixed_proxy_anchor}


def metric_learning(
    model: Model,
    tx: optax.GradientTransformation,
    num_classes: int,
    *,
    augment: Augment,
    projector: Head,
    objective: Annotated[functools.partial, Part("objectives.metric_learning", ("z", "labels"), optional=("proxies",))],
    mixed_per_anchor: NonNegativeInt,
    mix_weight: NonNegative,
) -> Method:
    """The objective on the normalised projections of one view of `batch["labelled"]`, plus `mix_weight` times its
    mixed form on `mixed_per_anchor` mixed embeddings of each anchor; the anchors are the batch, or the proxies.

    A mixed embedding is lam z_i + (1 - lam) z_j, i of the anchor's class, j of another, drawn anew in each step; lam
    from Beta(2, 2), by pair. The anchor may be its own i: the authors' code has such pairs too, in steps of their own.
    Where the batch has no such i or j, any row serves. The code takes all negatives of an anchor and one lam a step;
    its weight is 0.4. Proxies, where the objective takes some, are parameters like the others: those of Proxy-Anchor's
    authors learn at 100 times the network's rate, which is not done here.

    Metrics: `loss`; `mixed_loss` if there is mixing; `class_scores` of the projections; `recall_at_1` within the batch;
    `nearest_distance`, the mean squared distance of an embedding to the nearest other: `utilization` of the batch by
    itself, 0 when collapsed.

    Raises:
      ValueError: the objective has no mixed form, but `mixed_per_anchor` is not 0.
    """
    takes_proxies = "proxies" in parameters(objective.func)[0]
    if mixed_per_anchor and objective.func not in MIXED:
        raise ValueError(f"mixed_per_anchor = {mixed_per_anchor}: must be 0, {objective.func.__name__} mixes nothing")
    net = stack(backbone=model, projector=projector)

    def init(rng, batch):
        rng_net, rng_proxies = state.named(rng, "model", "proxies")
        image = state.to_float(batch["labelled"]["input"][:1])
        variables = net.init(rng_net, image)
        if takes_proxies:
            width = jax.eval_shape(lambda: net.apply(variables, image, train=False))[0]["projector"].shape[-1]
            proxies = normalise(jax.random.normal(rng_proxies, (num_classes, width)))
            variables["params"]["proxies"] = proxies
        return state.start(tx, variables)

    def step(old, batch, rng):
        rng_augment, rng_model = state.named(rng, "labelled/view", "model")
        image, label = augment(rng_augment, batch["labelled"]["input"]), batch["labelled"]["label"]
        anchor_label = jnp.arange(num_classes) if takes_proxies else label
        positive = anchor_label[:, None] == label[None]
        mix = draw_mix(rng, positive, mixed_per_anchor)

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, image, train=True, rng=rng_model)
            z = normalise(outputs["projector"])
            proxies = (params["proxies"],) if takes_proxies else ()
            loss = objective(z, label, *proxies)
            mixed_loss = jnp.zeros_like(loss)
            if mixed_per_anchor:
                anchors = params["proxies"] if takes_proxies else z
                mixed_loss = MIXED[objective.func](anchors, *metric_mix(z, positive, *mix), **objective.keywords)
            return loss + mix_weight * mixed_loss, (mixed_loss, z, model_state)

        (loss, (mixed_loss, z, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        others = jnp.where(jnp.eye(len(z), dtype=bool), -2.0, cosine(z, z))
        metrics = {
            "loss": loss,
            **({"mixed_loss": mixed_loss} if mixed_per_anchor else {}),
            **class_scores(z, label, num_classes),
            "recall_at_1": jnp.mean(label[jnp.argmax(others, axis=1)] == label),
            "nearest_distance": jnp.mean(2 - 2 * jnp.max(others, axis=1)),
        }
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables)


def draw_mix(rng: jax.Array, positive: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Pairs int [A, count, 2] and interpolation [A, count] for `metric_mix`, from `positive` bool [A, B]."""
    rng_first, rng_second, rng_share = state.named(rng, "mix/first", "mix/second", "mix/share")

    def draw(rng, allowed):
        allowed = allowed | ~jnp.any(allowed, axis=1, keepdims=True)
        up_to = jnp.cumsum(allowed, axis=1, dtype=jnp.int32)
        rank = jax.random.randint(rng, (len(allowed), count), 0, up_to[:, -1:], dtype=jnp.int32)
        return jax.vmap(functools.partial(jnp.searchsorted, side="right"))(up_to, rank)

    pairs = jnp.stack([draw(rng_first, positive), draw(rng_second, ~positive)], axis=-1)
    uniform = jax.random.uniform(rng_share, (3, len(positive), count))
    return pairs, jnp.median(uniform, axis=0)  # the median of three is from Beta(2, 2)
