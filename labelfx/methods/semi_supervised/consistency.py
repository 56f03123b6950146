"""Consistency training: the weak view of an unlabelled image gives the pseudo-label of its strong view (FixMatch, Sohn
et al. 2020, Algorithm 1; UDA, Xie et al. 2020; FlexMatch, FreeMatch and SoftMatch)."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Fraction, NonNegative, Part
from labelfx.data import known
from labelfx.data.augment import augmented, is_dense, restyled
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.targets.pseudo_labels import PseudoLabels
from labelfx.models import Model, apply_together
from labelfx.objectives import pseudo_label


class ConsistencyState(NamedTuple):
    """The network with its optimiser, and the moving average of its variables that evals read."""

    network: state.TrainState
    average: Any
    marginal: jax.Array  # float32 [C], the moving average of the weak view's probabilities
    adapted: Any  # the state of the pseudo-labels
    done: jax.Array  # int32, the steps


def consistency(
    classifier: Model,
    tx: optax.GradientTransformation,
    steps: int,
    num_classes: int,
    num_examples: int,
    *,
    weak: Augment,
    strong: Augment,
    pseudo_labels: Annotated[PseudoLabels, Part("methods.targets.pseudo_labels")],
    alignment: Fraction | None,
    unlabelled_weight: NonNegative,
    tsa: Literal["linear", "log", "exp"] | None,
    ema: Fraction,
) -> Method:
    """Cross-entropy on `batch["labelled"]`, weakly augmented, and `unlabelled_weight` times the mean over all of
    `batch["unlabelled"]` of the pseudo-labels' weight times the KL divergence of the strong view from the pseudo-label:
    the cross-entropy where that is hard.

    `alignment` is the momentum of distribution alignment with equally frequent classes, or None; `tsa` UDA's training
    signal annealing of the labelled loss, or None; `ema` the decay of the average, of parameters and BatchNorm
    statistics from their first values on (FixMatch's code averages parameters alone). One forward pass over
    the three views: BatchNorm statistics are those of all of them.

    Where labels are dense, every pixel is a row, and the strong view is the weak one with the values of `strong`: the
    pixel that gives a pseudo-label and the one that is taught it are the same.

    Metrics: `loss`, `labelled_loss`, `unlabelled_loss`, `accuracy` of the labelled view; `acceptance`, the mean weight:
    the share above the threshold; `pseudo_label_accuracy` against the truth, averaged with the weights over the rows
    with a known one (0 where there are none); `threshold`, its mean over classes.
    """

    def init(rng, batch):
        network = state.create(classifier, tx, state.fold_in_name(rng, "model"), batch["unlabelled"]["input"])
        # A copy: donated buffers must not be shared between the two networks.
        average = jax.tree.map(jnp.copy, network.variables)
        adapted = pseudo_labels.init(num_classes, num_examples)
        return ConsistencyState(
            network, average, jnp.full(num_classes, 1 / num_classes), adapted, jnp.zeros((), jnp.int32)
        )

    def step(old, batch, rng):
        rng_labelled, rng_weak, rng_strong, rng_model = state.named(
            rng, "labelled/weak", "unlabelled/weak", "unlabelled/strong", "model"
        )
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        dense = is_dense(labelled["label"])
        audit = {**batch["audit"]["unlabelled"], "input": unlabelled["input"]}
        labelled_view, labelled = augmented(weak, rng_labelled, labelled)
        weak_view, audit = augmented(weak, rng_weak, audit)
        strong_view = restyled(strong, rng_strong, weak_view) if dense else strong(rng_strong, unlabelled["input"])
        label, truth = labelled["label"].ravel(), audit["label"].ravel()  # every pixel is a row
        views = [labelled_view, weak_view, strong_view]
        ceiling = 1.0 if tsa is None else pseudo_label.tsa_threshold(old.done / steps, num_classes, tsa)

        def loss_fn(params):
            variables = {"params": params, **old.network.model_state}
            outputs, model_state = apply_together(classifier, variables, views, train=True, rng=rng_model)
            ends = len(views[0]), len(views[0]) + len(views[1])
            logits = jnp.split(outputs["head"], ends)
            labelled_logits, weak_logits, strong_logits = (each.reshape(-1, num_classes) for each in logits)
            probs, marginal = jax.lax.stop_gradient(jax.nn.softmax(weak_logits)), old.marginal
            aligned = probs
            if alignment is not None:
                uniform = jnp.full_like(marginal, 1 / num_classes)
                aligned, marginal = pseudo_label.align_distribution(probs, uniform, marginal, momentum=alignment)
            targets, weights, threshold, adapted = pseudo_labels.assign(
                probs, aligned, unlabelled["index"], old.adapted
            )
            labelled_loss = pseudo_label.tsa(labelled_logits, label, threshold=ceiling)
            unlabelled_loss = pseudo_label.masked_consistency(weights, targets, strong_logits)
            penalty = pseudo_labels.penalty(strong_logits, weights, adapted)
            loss = labelled_loss + unlabelled_weight * unlabelled_loss + penalty
            metrics = {
                "loss": loss,
                "labelled_loss": labelled_loss,
                "unlabelled_loss": unlabelled_loss,
                "accuracy": jnp.sum(jnp.argmax(labelled_logits, -1) == label) / jnp.maximum(jnp.sum(known(label)), 1),
                "acceptance": jnp.mean(weights, dtype=probs.dtype),
                "pseudo_label_accuracy": accuracy(targets, weights, truth),
                "threshold": jnp.mean(threshold, dtype=probs.dtype),
            }
            return loss, (model_state, marginal, adapted, metrics)

        gradient, (model_state, marginal, adapted, metrics) = jax.grad(loss_fn, has_aux=True)(old.network.params)
        network = state.descend(old.network, tx, gradient, model_state)
        average = state.follow(old.average, network, ema)
        return ConsistencyState(network, average, marginal, adapted, old.done + 1), metrics

    return Method(init, step, lambda state: state.average)


def accuracy(targets: jax.Array, weights: jax.Array, truth: jax.Array) -> jax.Array:
    """The weighted share of rows whose target [B, C] is largest at the truth [B], -1 unknown; 0 without weight."""
    weights = jnp.where(truth >= 0, weights.astype(targets.dtype), 0)
    right = jnp.sum(weights, where=jnp.argmax(targets, -1) == truth)
    return right / jnp.maximum(jnp.sum(weights), jnp.finfo(weights.dtype).tiny)
