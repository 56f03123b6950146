"""Test-time adaptation: a trained classifier adapts to shifted images without any label, by pseudo-labels that its
neighbours vote on and contrast between them (AdaContrast, Chen et al. 2022, section 3)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Fraction, NonNegative, Positive, PositiveInt
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.from_labels.finetune import start_from
from labelfx.methods.self_supervised.moco import encode_keys
from labelfx.models import Model
from labelfx.objectives.adaptation import class_aware_info_nce, diversity, neighbour_vote
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.contrastive import normalise


class Queue(NamedTuple):
    """What the momentum network has said of the last K images. Empty rows have probabilities 0 and the label -1."""

    features: jax.Array  # float32 [K, F], of the weak view, as are
    probs: jax.Array  # float32 [K, C]
    keys: jax.Array  # float32 [K, F], features of a strong view
    labels: jax.Array  # int32 [K], the pseudo-labels that the keys came with


class AdaptationState(NamedTuple):
    """The network that adapts, the momentum network, the queue and its oldest row."""

    network: state.TrainState
    momentum_params: Any
    momentum_model_state: Any
    queue: Queue
    oldest: jax.Array


def test_time_adaptation(
    classifier: Model,
    tx: optax.GradientTransformation,
    num_classes: int,
    backbone: dict,
    *,
    weak: Augment,
    strong: Augment,
    neighbours: PositiveInt,
    temperature: Positive,
    contrastive_weight: NonNegative,
    diversity_weight: NonNegative,
    momentum: Fraction,
    queue_size: PositiveInt,
) -> Method:
    """Adapts every parameter of `backbone`, with its classifier, to `batch["unlabelled"]`.

    Order of a step: the momentum network follows; its features and probabilities of the weak view are enqueued; the
    `neighbours` rows of the queue nearest to the network's own weak view vote on the pseudo-label; cross-entropy of the
    strong view with it, plus `contrastive_weight` times contrast with a second strong view's key, plus
    `diversity_weight` times minus the entropy of the mean prediction; keys and pseudo-labels are enqueued. The authors'
    weights are 1. With one neighbour, mostly the image itself, the pseudo-labels are not refined.

    The authors' code fills the queue of features by a pass over all images before it begins, and enqueues a batch after
    it has voted; here both queues start empty, empty rows count for nothing, and a batch is enqueued first, so that an
    image has at least itself for a neighbour. Their bottleneck and classifier learn at 10 times the backbone's rate,
    here there is one rate. As there, the networks are in training mode (BatchNorm normalises each view by its own
    statistics, keys are shuffled where it has groups, as in `moco`, and evals use the running ones), and images have
    two features: those of the weak view are neighbours, those of the strong one keys. Evals read the network that
    adapts, on test images it has not adapted to.

    Metrics: `loss`, its parts `classification_loss`, `contrastive_loss` and `diversity` (log C at best, 0 when all
    images are given one class), `agreement` (share of pseudo-labels that are the network's own class of the weak view),
    `pseudo_label_accuracy` against the known truth (0 without any), `embedding_std` of the normalised queries.

    Raises:
      ValueError: `queue_size` is not a multiple of the unlabelled batch, the run that it starts from has trained no
        classifier, or its parameters are not those of `config.model`.
    """
    if "head" not in backbone["params"]:
        raise ValueError("the run that it starts from has trained no classifier")

    def init(rng, batch):
        image = batch["unlabelled"]["input"]
        if queue_size % len(image):
            raise ValueError(f"queue_size = {queue_size}: must be a multiple of batch.unlabelled = {len(image)}")
        fresh = classifier.init(state.fold_in_name(rng, "model"), state.to_float(image[:1]))
        network = state.start(tx, start_from(fresh, backbone, ("backbone", "head")))
        # Copies: donated buffers must not be shared between the two networks.
        momentum_params, momentum_model_state = jax.tree.map(jnp.copy, (network.params, network.model_state))
        width = jax.eval_shape(look, network.params, network.model_state, image, rng)[0].shape[-1]
        queue = Queue(
            jnp.zeros((queue_size, width)),
            jnp.zeros((queue_size, num_classes)),
            jnp.zeros((queue_size, width)),
            jnp.full(queue_size, -1, jnp.int32),
        )
        return AdaptationState(network, momentum_params, momentum_model_state, queue, jnp.zeros((), jnp.int32))

    def look(params, model_state, view, rng):
        """Features, logits and the new model state."""
        variables = {"params": params, **model_state}
        outputs, model_state = classifier.apply(variables, state.to_float(view), train=True, rng=rng)
        return outputs["backbone"], outputs["head"], model_state

    def step(old, batch, rng):
        rng_weak, rng_query, rng_key = state.named(rng, "unlabelled/weak", "unlabelled/query", "unlabelled/key")
        rng_own, rng_own_query, rng_neighbour, rng_momentum_key = state.named(
            rng, "model/weak", "model/query", "model/momentum/weak", "model/momentum/key"
        )
        image, params = batch["unlabelled"]["input"], old.network.params
        weak_view = weak(rng_weak, image)

        def enqueue(rows, new):
            return jax.lax.dynamic_update_slice_in_dim(rows, new, old.oldest, axis=0)

        momentum_params = state.ema(old.momentum_params, params, momentum, where=old.network.moved)
        neighbour, logits, momentum_state = look(momentum_params, old.momentum_model_state, weak_view, rng_neighbour)

        def encode(view):
            return look(momentum_params, momentum_state, view, rng_momentum_key)[::2]

        key, momentum_state = encode_keys(encode, strong(rng_key, image), classifier.norm_groups, rng)
        features, probs = enqueue(old.queue.features, neighbour), enqueue(old.queue.probs, jax.nn.softmax(logits))
        feature, own, model_state = look(params, old.network.model_state, weak_view, rng_own)
        label = jnp.argmax(neighbour_vote(feature, features, probs, neighbours=neighbours), -1).astype(jnp.int32)

        def loss_fn(params):
            query, logits, new_state = look(params, model_state, strong(rng_query, image), rng_own_query)
            parts = {
                "classification_loss": cross_entropy(logits, label, label_smoothing=0.0),
                "contrastive_loss": class_aware_info_nce(
                    query, key, old.queue.keys, label, old.queue.labels, temperature=temperature
                ),
                "diversity": diversity(logits),
            }
            loss = (
                parts["classification_loss"]
                + contrastive_weight * parts["contrastive_loss"]
                - diversity_weight * parts["diversity"]
            )
            return loss, (parts, query, new_state)

        (loss, (parts, query, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        truth = batch["audit"]["unlabelled"]["label"]
        metrics = {
            "loss": loss,
            **parts,
            "agreement": jnp.mean(jnp.argmax(own, -1) == label),
            "pseudo_label_accuracy": jnp.sum((label == truth) & (truth >= 0)) / jnp.maximum(jnp.sum(truth >= 0), 1),
            "embedding_std": jnp.mean(jnp.std(normalise(query), 0)),
        }
        queue = Queue(features, probs, enqueue(old.queue.keys, key), enqueue(old.queue.labels, label))
        network = state.descend(old.network, tx, gradient, model_state)
        oldest = (old.oldest + len(image)) % queue_size
        return AdaptationState(network, momentum_params, momentum_state, queue, oldest), metrics

    return Method(init, step, lambda state: state.network.variables)
