"""Enhanced meta label correction: a teacher corrects doubtful labels and learns from how a student of them does on few
right ones (EMLC, Taraday and Baskin 2023, ICCV)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Head, NonNegative, Optimizer, Probability
from labelfx.data.augment import to_float
from labelfx.loop import state
from labelfx.loop.state import TrainState
from labelfx.methods import Method
from labelfx.methods.semi_supervised.meta_pseudo_labels import refuse_accumulation, soft_cross_entropy
from labelfx.models import Model, apply_together, pooled
from labelfx.objectives.classification import cross_entropy


class MetaCorrectionState(NamedTuple):
    """The student, the teacher, and what tells from the teacher's features whether a given label is right."""

    student: TrainState
    teacher: TrainState
    corrector: TrainState


def meta_correction(
    classifier: Model,
    tx: optax.GradientTransformation,
    steps: int,
    *,
    augment: Augment,
    corrector: Head,
    teacher_optimizer: Optimizer,
    inject: Probability,
    meta_weight: NonNegative,
) -> Method:
    """The student takes a step on `batch["unlabelled"]` with the labels r y + (1 - r) softmax(teacher), y being `given`
    and r = sigmoid(corrector(teacher's features, y)); teacher and corrector go down `meta_weight` times the loss of the
    student after that step on the labels of `batch["labelled"]`, which is differentiated through the step itself; the
    teacher's own loss on these; and the loss of r where a share `inject` of these labels is replaced at random, so that
    r is to be 1 where the label stayed right.

    The gradient through the step goes through the student's optimiser with its momentum, so it must be differentiable:
    SGD is, Adam is not where a gradient is 0. The authors leave the momentum out, and their gradient of several steps
    is of the rows in another order. It is as small as the student's rate. `meta_weight` 0 is the control. Student and
    teacher are `config.model` from different parameters; `config.optimizer` is the student's. The authors start both
    from a self-supervised encoder.

    Metrics: `loss` of the student, `meta_loss`, `teacher_loss`, `retain_loss`; `retained`, the mean of r; `accuracy` of
    the teacher on the labelled rows; `pseudo_label_accuracy` of the corrected labels, 0 where nobody knows the truth.

    Raises:
      ValueError: an optimiser accumulates gradients over steps.
    """
    teacher_tx = teacher_optimizer(steps)
    refuse_accumulation({"config.optimizer": tx, "config.method.teacher_optimizer": teacher_tx})

    def retain_logits(params, features, label, num_classes):
        """Of r [B]."""
        called = jax.nn.one_hot(label, num_classes, dtype=features.dtype)
        return corrector.apply({"params": params}, jnp.concatenate([features, called], -1), train=True)[0][:, 0]

    def init(rng, batch):
        rng_student, rng_teacher, rng_corrector = state.named(rng, "model", "teacher", "corrector")
        images = batch["labelled"]["input"]
        student, teacher = (
            state.create(classifier, each, key, images) for each, key in ((tx, rng_student), (teacher_tx, rng_teacher))
        )
        row = to_float(images[:1])
        found = classifier.apply(teacher.variables, row, train=False)[0]
        seen = jnp.concatenate([pooled(found["backbone"], row), found["head"]], -1)  # as wide as features and classes
        return MetaCorrectionState(student, teacher, state.start(teacher_tx, corrector.init(rng_corrector, seen)))

    def step(old, batch, rng):
        rng_clean, rng_doubtful, rng_inject, rng_student, rng_teacher = state.named(
            rng, "labelled/view", "unlabelled/view", "labelled/inject", "model/student", "model/teacher"
        )
        clean, label = augment(rng_clean, batch["labelled"]["input"]), batch["labelled"]["label"]
        doubtful, given = augment(rng_doubtful, batch["unlabelled"]["input"]), batch["unlabelled"]["given"]

        def learn(target):
            """The student after a step on these labels, and its loss before."""

            def loss_fn(params):
                variables = {"params": params, **old.student.model_state}
                found, model_state = classifier.apply(variables, doubtful, train=True, rng=rng_student)
                return soft_cross_entropy(found["head"], target), model_state

            (loss, model_state), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.student.params)
            return state.descend(old.student, tx, gradient, model_state), loss

        def total_loss(params):
            teacher, retain = params
            variables = {"params": teacher, **old.teacher.model_state}
            found, model_state = apply_together(classifier, variables, (clean, doubtful), train=True, rng=rng_teacher)
            logits, features = found["head"], pooled(found["backbone"], jnp.concatenate([clean, doubtful]))
            number, num_classes = len(label), logits.shape[-1]
            right, called = injected(rng_inject, label, num_classes, inject)
            of_clean = retain_logits(retain, features[:number], called, num_classes)
            retain_loss = jnp.mean(optax.sigmoid_binary_cross_entropy(of_clean, right.astype(logits.dtype)))

            r = jax.nn.sigmoid(retain_logits(retain, features[number:], given, num_classes))[:, None]
            target = corrected(r, given, jax.nn.softmax(logits[number:]))
            student, loss = learn(target)
            after = {"params": student.params, **old.student.model_state}
            seen = classifier.apply(after, clean, train=True, rng=rng_student)[0]["head"]
            meta_loss = cross_entropy(seen, label, label_smoothing=0.0)
            teacher_loss = cross_entropy(logits[:number], label, label_smoothing=0.0)
            metrics = {"loss": loss, "meta_loss": meta_loss, "teacher_loss": teacher_loss, "retain_loss": retain_loss}
            metrics |= {"retained": jnp.mean(r), "accuracy": jnp.mean(jnp.argmax(logits[:number], -1) == label)}
            total = meta_weight * meta_loss + teacher_loss + retain_loss
            return total, (student, model_state, target, metrics)

        params = old.teacher.params, old.corrector.params
        gradients, (student, model_state, target, metrics) = jax.grad(total_loss, has_aux=True)(params)
        teacher = state.descend(old.teacher, teacher_tx, gradients[0], model_state)
        retain = state.descend(old.corrector, teacher_tx, gradients[1], old.corrector.model_state)
        truth = batch["audit"]["unlabelled"]["label"]
        hits = (truth >= 0) & (jnp.argmax(target, -1) == truth)
        metrics["pseudo_label_accuracy"] = jnp.sum(hits) / jnp.maximum(jnp.sum(truth >= 0), 1)
        return MetaCorrectionState(student, teacher, retain), metrics

    return Method(init, step, lambda state: state.student.variables)


def injected(rng: jax.Array, label: jax.Array, num_classes: int, share: float) -> tuple[jax.Array, jax.Array]:
    """Labels int [B] of which a share is replaced by any class, and which are right all the same, bool [B], first."""
    rng_where, rng_class = jax.random.split(rng)
    where = jax.random.bernoulli(rng_where, share, label.shape)
    called = jnp.where(where, jax.random.randint(rng_class, label.shape, 0, num_classes, label.dtype), label)
    return called == label, called


def corrected(r: jax.Array, given: jax.Array, probs: jax.Array) -> jax.Array:
    """r y + (1 - r) p, [B, C], of r [B, 1], y the one-hot of given int [B], p [B, C]; where none is given, p."""
    r = jnp.where(given[:, None] >= 0, r, 0)
    return r * jax.nn.one_hot(given, probs.shape[-1], dtype=probs.dtype) + (1 - r) * probs
