"""Self Meta Pseudo Labels: Meta Pseudo Labels with one network, its own teacher (Ng & Wang 2022, arXiv:2212.13420)."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Fraction, NonNegative, Optimizer, Positive, PositiveInt, Probability
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.semi_supervised.consistency import accuracy
from labelfx.methods.semi_supervised.meta_pseudo_labels import refuse_accumulation, subtract_baseline, uda_teacher_loss
from labelfx.models import Model, apply_together
from labelfx.objectives.classification import cross_entropy


class SelfMetaPseudoLabelsState(NamedTuple):
    """The network with the optimiser of its second update, that of the first, and the average that evals read."""

    network: state.TrainState
    first_opt_state: Any
    average: Any
    baseline: jax.Array  # float32, the moving average of h
    done: jax.Array  # int32, the steps


def self_meta_pseudo_labels(
    classifier: Model,
    tx: optax.GradientTransformation,
    steps: int,
    num_classes: int,
    *,
    weak: Augment,
    strong: Augment,
    first_optimizer: Optimizer,
    feedback_forward: Literal["frozen", "redrawn"],
    baseline_decay: Fraction | None,
    label_smoothing: Fraction,
    mpl_weight: NonNegative,
    uda_weight: NonNegative,
    uda_ramp: PositiveInt,
    uda_temperature: Positive,
    uda_threshold: Probability,
    ema: Fraction,
) -> Method:
    """Two updates a step, both with gradients of one forward pass over [labelled, weak, strong] at the parameters
    theta. The first, by `first_optimizer` (the authors: SGD without momentum), learns the pseudo-labels: theta'. The
    second, by `config.optimizer`, starts at theta' and learns the labels, UDA, and the pseudo-labels once more, times
    h = CE(theta) - CE(theta') on the labelled images: positive when they have helped.

    The pseudo-labels are the likeliest classes of the weak view, without a threshold. The authors' code has the other
    sign of h, feeds back the likeliest classes of the strong view, and overwrites theta before it takes the second
    gradient, which so mixes theta and theta'. The labels are not drawn from the network that h teaches, so the
    feedback is no estimate of a meta-gradient.

    Other keywords and metrics as for `meta_pseudo_labels`: `loss` is that of the first update, `second_loss` that of
    the second; `accuracy` is on the labelled images at theta.

    Raises:
      ValueError: an optimiser accumulates gradients over steps.
    """
    first_tx = first_optimizer(steps)
    refuse_accumulation({"config.optimizer": tx, "config.method.first_optimizer": first_tx})

    def init(rng, batch):
        network = state.create(classifier, tx, state.fold_in_name(rng, "model"), batch["labelled"]["input"])
        # A copy: donated buffers must not be shared between the two networks.
        average = jax.tree.map(jnp.copy, network.variables)
        return SelfMetaPseudoLabelsState(
            network, first_tx.init(network.params), average, jnp.zeros(()), jnp.zeros((), jnp.int32)
        )

    def step(old, batch, rng):
        rng_labelled, rng_weak, rng_strong, rng_model, rng_feedback = state.named(
            rng, "labelled/weak", "unlabelled/weak", "unlabelled/strong", "model", "model/feedback"
        )
        label, rows, theta = batch["labelled"]["label"], len(batch["labelled"]["label"]), old.network.params
        labelled = weak(rng_labelled, batch["labelled"]["input"])
        unlabelled = [
            augment(rng, batch["unlabelled"]["input"]) for augment, rng in ((weak, rng_weak), (strong, rng_strong))
        ]
        views = labelled, *unlabelled

        def classify(params, batches, rng):
            variables = {"params": params, **old.network.model_state}
            outputs, model_state = apply_together(classifier, variables, batches, train=True, rng=rng)
            return outputs["head"], model_state

        logits, pull_back, model_state = jax.vjp(lambda params: classify(params, views, rng_model), theta, has_aux=True)
        pseudo_label = jnp.argmax(jnp.split(logits[rows:], 2)[0], -1)

        def pseudo_label_loss(logits, label_smoothing):
            return cross_entropy(jnp.split(logits[rows:], 2)[1], pseudo_label, label_smoothing=label_smoothing)

        loss, gradient = jax.value_and_grad(pseudo_label_loss)(logits, label_smoothing)
        updates, first_opt_state = first_tx.update(*pull_back(gradient), old.first_opt_state, theta)
        ahead = optax.apply_updates(theta, updates)

        again = (views, rng_model) if feedback_forward == "frozen" else ((labelled,), rng_feedback)
        before, after = (
            cross_entropy(logits[:rows], label, label_smoothing=0.0) for logits in (logits, classify(ahead, *again)[0])
        )
        h = before - after
        advantage, baseline = subtract_baseline(h, old.baseline, baseline_decay)

        def second_loss_fn(logits):
            weight = uda_weight * jnp.minimum(1.0, old.done / uda_ramp)
            loss, metrics = uda_teacher_loss(
                logits,
                label,
                label_smoothing=label_smoothing,
                weight=weight,
                temperature=uda_temperature,
                threshold=uda_threshold,
            )
            return loss + mpl_weight * advantage * pseudo_label_loss(logits, 0.0), metrics

        (second_loss, metrics), gradient = jax.value_and_grad(second_loss_fn, has_aux=True)(logits)
        (gradient,) = pull_back(gradient)
        network = state.descend(old.network._replace(params=ahead), tx, gradient, model_state)
        truth = batch["audit"]["unlabelled"]["label"]
        target = jax.nn.one_hot(pseudo_label, num_classes)
        metrics |= {
            "loss": loss,
            "second_loss": second_loss,
            "feedback": h,
            "baseline": baseline,
            "accuracy": metrics.pop("teacher_accuracy"),
            "pseudo_label_accuracy": accuracy(target, jnp.ones_like(truth), truth),
        }
        average = state.follow(old.average, network, ema)
        return SelfMetaPseudoLabelsState(network, first_opt_state, average, baseline, old.done + 1), metrics

    return Method(init, step, lambda state: state.average)
