"""Soft labels of trained networks that look at the rows of a step, or of what is said of these."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config import local
from labelfx.config.annotations import Augment, Fraction
from labelfx.data import Task
from labelfx.finished.encoder import load
from labelfx.loop import state
from labelfx.methods.targets.soft_labels import Seen, SoftLabels
from labelfx.models import Trained, pooled
from labelfx.objectives.contrastive import at_least_float32


def teachers(
    teachers: tuple[Trained, ...],
    task: Task,
    num_classes: int,
    *,
    augment: Augment,
    combine: Literal["probabilities", "logits", "each"],
) -> SoftLabels:
    """What the runs of `config.teacher` say of the rows, in evaluation mode (Hinton et al. 2015, section 2).

    They see the rows under an augmentation of their own with the student's random numbers: under one augmentation the
    same view; a noisy student has a stronger one than its teachers (Xie et al. 2020, Noisy Student).

    Several are averaged: their `probabilities` (of several labels, those of each), as in Shen & Savvides 2020, MEAL V2,
    section 3.2, or their `logits`; or `each` is a source of its own, known or not to the others. A teacher of fewer
    classes than the run's has them by name: the average counts 0 for what it does not know, and `each` is compared with
    the student among its own classes (specialists; Gao et al. 2017, Knowledge Concentration).

    Raises:
      ValueError: logits of teachers with different classes cannot be averaged.
    """
    if combine == "logits" and len({each.classes for each in teachers}) > 1:
        raise ValueError("combine = 'logits': the teachers know different classes; take 'probabilities' or 'each'")

    def assign(seen: Seen, before):
        logits = said_by(teachers, seen.frozen, _looked_at(augment, seen), num_classes)
        if combine != "each":
            logits = averaged(logits, task, combine)[None]
        return logits, jnp.ones(logits.shape[:-1], logits.dtype), before

    return SoftLabels(assign, frozen=tuple(each.variables for each in teachers))


def said_by(teachers: Sequence[Trained], variables: Sequence[Any], rows: jax.Array, num_classes: int) -> jax.Array:
    """Logits [T, B, ..., num_classes] of T teachers of these variables, -inf of classes that one does not know."""
    found = []
    for teacher, own in zip(teachers, variables, strict=True):
        logits = at_least_float32(teacher.model.apply(own, rows, train=False)[0]["head"])
        if teacher.classes != (*range(num_classes),):
            blank = jnp.full((*logits.shape[:-1], num_classes), -jnp.inf, logits.dtype)
            logits = blank.at[..., jnp.array(teacher.classes)].set(logits)
        found.append(logits)
    return jnp.stack(found)


def averaged(logits: jax.Array, task: Task, combine: str) -> jax.Array:
    """Logits [..., C] of the mean of several networks' [T, ..., C]: of their probabilities, or as they are."""
    if combine == "logits":
        return jnp.mean(logits, 0)
    count = jnp.log(jnp.asarray(len(logits), logits.dtype))
    if task != "several":
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), 0) - count
    yes, no = (jax.nn.logsumexp(jax.nn.log_sigmoid(sign * logits), 0) for sign in (1, -1))
    return yes - no


def labels(num_classes: int, *, column: Literal["label", "given", "target"], smoothing: Fraction) -> SoftLabels:
    """What a column says of the rows, mixed with the uniform distribution: the answers of a network that is not at hand
    (response-based distillation; Hinton et al. 2015). Of `target` they are distributions; rows of which nothing is said
    have no weight."""

    def assign(seen: Seen, before):
        said = seen.label if column == "label" else seen.column(column)
        if column == "target":
            target = said
            known = ~jnp.any(jnp.isnan(target), -1)
            target = jnp.where(known[..., None], target, 1 / num_classes)
        else:
            known, target = said >= 0, jax.nn.one_hot(said, num_classes)
        target = (1 - smoothing) * target + smoothing / num_classes
        return log_of(target)[None], known[None].astype(target.dtype), before

    return SoftLabels(assign)


def low_rank(num_classes: int, *, file: str, encoder: str, augment: Augment) -> SoftLabels:
    """What a low-rank projector makes of a frozen encoder's features of the views: soft labels of any view of any row
    for a few numbers a class, and none a row (HeLlO; Yu et al. 2024, arXiv 2408.08201). Views are those of `teachers`.

    Args:
      file: that `labelfx.condense lighten` has written.
      encoder: the run, or the file of weights, whose features it was fitted on.

    Raises:
      ValueError: there is no such file or encoder, or it is of other classes or features.
    """
    try:
        with np.load(local(file)) as found:
            left, right, mean, bias = (found[f"projector_{name}"] for name in ("left", "right", "mean", "bias"))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"file = {file!r}: no projector there ({error}); labelfx.condense lighten writes one"
        ) from None
    if len(bias) != num_classes:
        raise ValueError(f"file = {file!r}: of {len(bias)} classes; these data have {num_classes}")
    trunk = load(encoder)

    def assign(seen: Seen, before):
        rows = _looked_at(augment, seen)
        features = pooled(trunk.model.apply(seen.frozen["encoder"], rows, train=False)[0], rows)
        if features.shape[1] != len(mean):
            raise ValueError(f"encoder = {encoder!r}: has {features.shape[1]} features, the projector {len(mean)}")
        own = seen.frozen
        logits = (at_least_float32(features) - own["mean"][None]) @ own["left"] @ own["right"] + own["bias"][None]
        return logits[None], jnp.ones((1, len(logits)), logits.dtype), before

    arrays = {"left": left, "right": right, "mean": mean, "bias": bias, "encoder": trunk.variables}
    return SoftLabels(assign, frozen=arrays)


def _looked_at(augment, seen):
    """Views of all rows under another augmentation, with the random numbers of the student's."""
    return jnp.concatenate(
        [
            augment(state.fold_in_name(seen.rng, f"{name}/view"), columns["input"])
            for name, columns in seen.columns.items()
        ]
    )


def log_of(probabilities: jax.Array) -> jax.Array:
    """Their logarithms, finite where they are 0."""
    return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))
