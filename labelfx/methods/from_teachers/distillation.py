"""Distillation: a student learns the class probabilities of a trained teacher, and labels where there are any (Hinton
et al. 2015; on unlabelled images, Chen et al. 2020, SimCLRv2, section 2; in rounds, Xie et al. 2020, Noisy Student)."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Positive, Probability
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, Trained, apply_together
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.distillation import kd


def distillation(
    classifier: Model,
    tx: optax.GradientTransformation,
    teacher: Trained,
    *,
    augment: Augment,
    teacher_augment: Augment,
    temperature: Positive,
    soft_weight: Probability,
) -> Method:
    """`soft_weight * kd + (1 - soft_weight) * cross_entropy`: the first on the labelled and unlabelled images of a step
    together, whichever there are, the second on the labelled ones.

    Student and teacher see the same images under random numbers of their own, so under one augmentation the same view;
    a noisy student has a stronger one than its teacher. The teacher is in evaluation mode, the student's BatchNorm uses
    the statistics of all images of the step. Self-distillation is a phase with `teacher="previous"` after another:
    each begins with fresh parameters.

    Metrics: `loss`, its parts `soft_loss` and `hard_loss`, `agreement` (share of images to which both give the same
    class), `pseudo_label_accuracy` of the teacher on the unlabelled images whose class is known (0 without any).

    Raises:
      ValueError: there are no labelled images, but `soft_weight` is not 1.
    """

    def init(rng, batch):
        if "labelled" not in batch and soft_weight < 1:
            raise ValueError(f"soft_weight = {soft_weight}: must be 1 where batch.labelled is 0")
        return state.create(classifier, tx, state.fold_in_name(rng, "model"), images(batch)[0][1])

    def step(old, batch, rng):
        rng_model = state.fold_in_name(rng, "model")
        easy = jnp.concatenate(views(teacher_augment, batch, rng))
        target = teacher.model.apply(batch["frozen"], easy, train=False)[0]["head"]
        view = views(augment, batch, rng)

        def loss_fn(params):
            variables = {"params": params, **old.model_state}
            outputs, model_state = apply_together(classifier, variables, view, train=True, rng=rng_model)
            logits = outputs["head"]
            soft, hard = kd(logits, target, temperature=temperature), jnp.zeros((), logits.dtype)
            if "labelled" in batch:
                label = batch["labelled"]["label"]
                hard = cross_entropy(logits[: len(label)], label, label_smoothing=0.0)
            return soft_weight * soft + (1 - soft_weight) * hard, (soft, hard, logits, model_state)

        (loss, aux), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        soft, hard, logits, model_state = aux
        guess = jnp.argmax(target, -1)
        metrics = {
            "loss": loss,
            "soft_loss": soft,
            "hard_loss": hard,
            "agreement": jnp.mean(jnp.argmax(logits, -1) == guess),
        }
        if "unlabelled" in batch:
            truth = batch["audit"]["unlabelled"]["label"]
            right = (guess[-len(truth) :] == truth) & (truth >= 0)
            metrics["pseudo_label_accuracy"] = jnp.sum(right) / jnp.maximum(jnp.sum(truth >= 0), 1)
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables, frozen=teacher.variables)


def images(batch: dict) -> list[tuple[str, jax.Array]]:
    """The streams that the batch has, labelled ones first, and their images."""
    return [(name, batch[name]["input"]) for name in ("labelled", "unlabelled") if name in batch]


def views(augment: Augment, batch: dict, rng: jax.Array) -> list[jax.Array]:
    """One view of the images of each stream. Augmentations of one key see the same random numbers."""
    return [augment(state.fold_in_name(rng, f"{name}/view"), image) for name, image in images(batch)]
