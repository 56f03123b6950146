"""Deep mutual learning: two networks learn the labels, and from each other (Zhang et al. 2018, Algorithm 1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Optimizer, Positive
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.from_teachers.distillation import views
from labelfx.models import Model, apply_together
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.distillation import kd


class Pair(NamedTuple):
    """Two networks, each with its optimiser."""

    student: state.TrainState
    peer: state.TrainState


def mutual_learning(
    classifier: Model,
    tx: optax.GradientTransformation,
    steps: int,
    *,
    augment: Augment,
    peer_optimizer: Optimizer,
    temperature: Positive,
) -> Method:
    """Distillation without a trained teacher: each network's loss is the cross-entropy of the labelled images plus `kd`
    from the other network on the labelled and unlabelled ones; the paper has temperature 1 and labelled images alone.

    The networks are of one kind, begin apart and see the same view. Both move at once, from each other's probabilities
    before the step (the paper moves one after the other). Evals read the student, the one that `tx` trains.

    Metrics: `loss` and `peer_loss`, `accuracy` (the student's, on the labelled images), `agreement` (share of images to
    which both give the same class).
    """
    peer_tx = peer_optimizer(steps)

    def init(rng, batch):
        image = batch["labelled"]["input"]
        rng_student, rng_peer = state.named(rng, "model", "peer")
        return Pair(
            state.create(classifier, tx, rng_student, image), state.create(classifier, peer_tx, rng_peer, image)
        )

    def step(old, batch, rng):
        rngs = state.named(rng, "model/student", "model/peer")
        label, view = batch["labelled"]["label"], views(augment, batch, rng)

        def loss_fn(params):
            forward = [
                apply_together(classifier, {"params": own, **network.model_state}, view, train=True, rng=own_rng)
                for own, network, own_rng in zip(params, old, rngs, strict=True)
            ]
            logits, model_states = [outputs["head"] for outputs, _ in forward], [after for _, after in forward]
            losses = [
                cross_entropy(own[: len(label)], label, label_smoothing=0.0)
                + kd(own, jax.lax.stop_gradient(other), temperature=temperature)
                for own, other in zip(logits, logits[::-1], strict=True)
            ]
            return sum(losses), (losses, logits, model_states)

        # Neither loss reaches the other's parameters, so the gradient of their sum is both gradients.
        params = [network.params for network in old]
        (_, (losses, logits, model_states)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
        new = map(state.descend, old, (tx, peer_tx), gradients, model_states)
        student, peer = (jnp.argmax(each, -1) for each in logits)
        metrics = {
            "loss": losses[0],
            "peer_loss": losses[1],
            "accuracy": jnp.mean(student[: len(label)] == label),
            "agreement": jnp.mean(student == peer),
        }
        return Pair(*new), metrics

    return Method(init, step, lambda state: state.student.variables)
