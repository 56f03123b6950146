"""MoCo: contrast against a queue of past keys from a slowly moving encoder (He et al. 2020, Algorithm 1)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Fraction, Head, Positive, PositiveInt
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.objectives.contrastive import cosine, info_nce_queue, map_rows, normalise


class MocoState(NamedTuple):
    """The query network and its optimiser, the key network, the queue (float32 [K, D]) and its oldest row."""

    query: state.TrainState
    key_params: Any
    key_model_state: Any
    queue: jax.Array
    oldest: jax.Array


def moco(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    projector: Head,
    temperature: Positive,
    momentum: Fraction,
    queue_size: PositiveInt,
) -> Method:
    """Order of a step: the key encoder follows the query encoder, keys, loss against the old queue, enqueue, descend.

    The moving average covers parameters; the key network keeps BatchNorm statistics of its own, those of the key
    images. Where BatchNorm is in groups (`norm_groups`), keys are encoded in an order drawn anew at each step, as in
    the paper, so that a query and its key are not normalised with the same images: their statistics would give the
    pair away. One group of the whole batch takes away what a group tells, not what the batch does: the queue's keys
    are of other batches, and the query's own key is of its own (He, in the discussion of the authors' code, issue 46).

    The loss rises while real keys replace the random ones that the queue starts with: the first `queue_size / batch`
    steps say nothing. Evals read the query encoder.

    Metrics: `loss`, `accuracy` (its own key scores above the whole queue), `positive_score`, `negative_score` (mean
    cosine), `embedding_std` of the queries.

    Raises:
      ValueError: `queue_size` is not a multiple of the unlabelled batch.
    """
    init, advance = momentum_contrast(
        model, tx, augment=augment, projector=projector, momentum=momentum, queue_size=queue_size
    )

    def step(old, batch, rng):
        def loss_fn(query, key, queue):
            return info_nce_queue(query, key, queue, temperature=temperature), {}

        new, _, metrics = advance(old, batch, rng, loss_fn)
        return new, metrics

    return Method(init, step, lambda state: state.query.variables)


def momentum_contrast(model, tx, *, augment, projector, momentum, queue_size) -> tuple[Callable, Callable]:
    """What methods on top of MoCo share: `init` of a method, and its step with any loss.

    `advance(old, batch, rng, loss_fn) -> (state, key, metrics)`: `loss_fn(query, key, queue) -> (loss, metrics)` takes
    queries and keys [B, D] as the networks give them and the old queue; the returned keys are normalised.
    """
    net = stack(backbone=model, projector=projector)

    def init(rng, batch):
        image = batch["unlabelled"]["input"]
        if queue_size % image.shape[0]:
            raise ValueError(f"queue_size = {queue_size}: must be a multiple of batch.unlabelled = {image.shape[0]}")
        rng_net, rng_queue = state.named(rng, "model", "queue")
        query = state.create(net, tx, rng_net, image)
        width = jax.eval_shape(project, query.params, query.model_state, image, rng)[0].shape[-1]
        queue = normalise(jax.random.normal(rng_queue, (queue_size, width)))
        # Copies: donated buffers must not be shared between the two networks.
        key_params, key_model_state = jax.tree.map(jnp.copy, (query.params, query.model_state))
        return MocoState(query, key_params, key_model_state, queue, jnp.zeros((), jnp.int32))

    def project(params, model_state, image, rng):
        outputs, model_state = net.apply({"params": params, **model_state}, state.to_float(image), train=True, rng=rng)
        return outputs["projector"], model_state

    def advance(old, batch, rng, loss_fn):
        rng_query, rng_key, rng_query_model, rng_key_model = state.named(
            rng, "unlabelled/query", "unlabelled/key", "model/query", "model/key"
        )
        image = batch["unlabelled"]["input"]
        key_params = state.ema(old.key_params, old.query.params, momentum, where=old.query.moved)

        def encode(view):
            return project(key_params, old.key_model_state, view, rng_key_model)

        key, key_model_state = encode_keys(encode, augment(rng_key, image), net.norm_groups, rng)

        def loss_of(params):
            query, model_state = project(params, old.query.model_state, augment(rng_query, image), rng_query_model)
            loss, extra = loss_fn(query, key, old.queue)
            return loss, (query, model_state, extra)

        (loss, (query, model_state, extra)), gradient = jax.value_and_grad(loss_of, has_aux=True)(old.query.params)
        query, key = normalise(query), normalise(key)
        positive = jnp.sum(query * key, -1)

        def of_negatives(query):
            negative = cosine(query, old.queue)
            return jnp.max(negative), jnp.mean(negative)

        largest, mean = map_rows(of_negatives, query, queue_size, None)
        metrics = {
            "loss": loss,
            "accuracy": jnp.mean(positive > largest),
            "positive_score": jnp.mean(positive),
            "negative_score": jnp.mean(mean),
            "embedding_std": jnp.mean(jnp.std(query, 0)),
            **extra,
        }
        queue = jax.lax.dynamic_update_slice_in_dim(old.queue, key, old.oldest, axis=0)
        oldest = (old.oldest + key.shape[0]) % queue_size
        query_state = state.descend(old.query, tx, gradient, model_state)
        return MocoState(query_state, key_params, key_model_state, queue, oldest), key, metrics

    return init, advance


def encode_keys(encode: Callable, view: jax.Array, norm_groups: int, rng: jax.Array) -> tuple[jax.Array, Any]:
    """`encode(view) -> (keys [B, D], model state)`. Where BatchNorm has groups it encodes the rows in an order drawn at
    each step, so that a key's group is not its query's; the keys come back in theirs."""
    if norm_groups == 1:
        return encode(view)
    order = jax.random.permutation(state.fold_in_name(rng, "key_order"), len(view))
    key, model_state = encode(view[order])
    return key[jnp.argsort(order)], model_state
