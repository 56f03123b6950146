"""Distillation: a student learns the class probabilities of a trained teacher, and labels where there are any (Hinton
et al. 2015; on unlabelled images, Chen et al. 2020, SimCLRv2, section 2; in rounds, Xie et al. 2020, Noisy Student)."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Fields, Head, Mixing, Optimizer, Part, Positive, Probability
from labelfx.data import Task, known
from labelfx.data.augment import augmented, placed, to_float
from labelfx.data.mixing import Mix, blend, blended
from labelfx.data.placement import Placement
from labelfx.data.weak import Supervision, supervision
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.from_labels.finetune import start_from
from labelfx.methods.from_labels.supervised import seen_of
from labelfx.methods.targets.soft_labels import Seen, SoftLabel, SoftLabels
from labelfx.models import Model, apply_together

SoftObjective = Annotated[
    Any, Part("objectives", ("student_logits",), optional=("teacher_logits", "negative_logits", "right", "weight"))
]
"""An objective of `labelfx.objectives.distillation`, its keywords bound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adversary:
    """A network that tells log-probabilities of the student from those of its teachers, which the student fools."""

    head: Head
    optimizer: Optimizer
    weight: Positive  # of the student's loss


class DistillationState(NamedTuple):
    """The student with its optimiser; what of the soft labels adapts; the adversary, () without one."""

    student: state.TrainState
    adapted: Any
    adversary: Any


def distillation(
    classifier: Model,
    tx: optax.GradientTransformation,
    steps: int,
    task: Task,
    backbone: dict | None = None,
    *,
    augment: Augment,
    soft_labels: SoftLabel,
    soft_objective: SoftObjective,
    soft_weight: Probability,
    objective: Supervision,
    mix: Mixing | None = None,
    adversary: Annotated[Adversary, Fields(Adversary)] | None = None,
) -> Method:
    """`soft_weight` times the soft objective plus `1 - soft_weight` times the objective: the first on the labelled and
    unlabelled rows of a step together, whichever there are, the second on the labelled ones.

    BatchNorm of the student uses the statistics of all rows of the step. With a `mix` the rows of a stream are mixed
    with each other once they are augmented, and the soft labels, as probabilities, alike; the objective as in
    `supervised`. Self-distillation is a phase with `teacher="previous"` after another: each begins with fresh
    parameters, or with those of `config.backbone`, a classifier's with its head.

    With an `adversary` its loss for the student is added (Shen & Savvides 2020, MEAL V2, section 3.3: with labels from
    teachers alone, `soft_weight` 1). It learns to tell both apart and the student to be taken for a teacher. In the
    released code one loss is minimised by both, so that the student helps it.

    Metrics: `loss`, its parts `soft_loss` and `hard_loss`; `kept`, the share of rows whose soft label has a weight;
    `agreement` (share of rows to which student and soft label give the same class), `pseudo_label_accuracy` of the soft
    labels on the unlabelled rows whose class is known (0 without any); with an adversary `adversary_loss`, ln 2 where
    it cannot tell, and `fooling_loss`, the student's.

    Raises:
      ValueError: there are no labelled rows, but `soft_weight` is not 1; labels of pixels are to be mixed; the
        backbone's parameters are not those of `config.model`.
    """
    adversary_tx = adversary.optimizer(steps) if adversary else None
    crops = soft_labels.stored.crops if soft_labels.stored else 1

    def init(rng, batch):
        if "labelled" not in batch and soft_weight < 1:
            raise ValueError(f"soft_weight = {soft_weight}: must be 1 where batch.labelled is 0")
        rng_student, rng_adversary = state.named(rng, "model", "adversary")
        row = images(batch)[0][1]
        student = state.create(classifier, tx, rng_student, row)
        if backbone is not None:
            student = state.start(tx, start_from(student.variables, backbone, ("backbone", "head")))
        opponent: Any = ()
        if adversary:
            logits = classifier.apply(student.variables, to_float(row[:1]), train=False)[0]["head"]
            opponent = state.start(adversary_tx, adversary.head.init(rng_adversary, logits))
        return DistillationState(student, soft_labels.init(), opponent)

    def step(old, batch, rng):
        rng_model, rng_mix = state.named(rng, "model", "mix")
        streams, view, placement = look(augment, soft_labels, crops, batch, rng)
        mixes = [mix(rng_mix, len(each), each.shape[1:], crops=crops) for each in view] if mix else []
        view = [blend(drawn, each) for drawn, each in zip(mixes, view, strict=True)] if mix else view
        label = jnp.concatenate([columns["label"] for columns in streams.values()])

        def loss_fn(params):
            variables = {"params": params["student"], **old.student.model_state}
            outputs, model_state = apply_together(classifier, variables, view, train=True, rng=rng_model)
            logits = outputs["head"]
            seen = Seen(streams, rng, batch.get("frozen"), label, jax.lax.stop_gradient(logits), placement)
            targets, weights, adapted = jax.lax.stop_gradient(soft_labels.assign(seen, old.adapted))
            loss_of = functools.partial(soft_loss, soft_objective, logits)
            soft = sum(
                mixed(together(mixes), loss_of, {"target": target, "weight": weight, "label": label})
                for target, weight in zip(targets, weights, strict=True)
            )
            hard = jnp.zeros((), logits.dtype)
            if "labelled" in streams:
                own = logits[: len(view[0])]
                seen_by = seen_of(outputs["backbone"][: len(own)], view[0], params["student"])
                hard = mixed(mixes[:1], lambda said: supervision(objective, own, said | seen_by), streams["labelled"])
            loss = soft_weight * soft + (1 - soft_weight) * hard
            metrics = {"soft_loss": soft, "hard_loss": hard, "kept": jnp.mean(weights > 0, dtype=loss.dtype)}
            if adversary:
                telling, fooling = opposed(adversary.head, params["adversary"], old.adversary, logits, targets[0])
                loss += telling + adversary.weight * fooling
                metrics |= {"adversary_loss": telling, "fooling_loss": fooling}
            return loss, (metrics, logits, targets, model_state, adapted)

        params = {"student": old.student.params} | ({"adversary": old.adversary.params} if adversary else {})
        (loss, aux), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        metrics, logits, targets, model_state, adapted = aux
        guess = jnp.argmax(jnp.max(jax.nn.log_softmax(targets), 0), -1)
        metrics = {"loss": loss, **metrics, "agreement": jnp.mean(jnp.argmax(logits, -1) == guess)}
        if "unlabelled" in streams and logits.ndim == 2:
            truth = jnp.repeat(batch["audit"]["unlabelled"]["label"], crops, 0)
            if truth.ndim == 1:
                right = (guess[-len(truth) :] == truth) & known(truth)
                metrics["pseudo_label_accuracy"] = jnp.sum(right) / jnp.maximum(jnp.sum(known(truth)), 1)
        opponent = old.adversary
        if adversary:
            opponent = state.descend(opponent, adversary_tx, gradient["adversary"], opponent.model_state)
        student = state.descend(old.student, tx, gradient["student"], model_state)
        return DistillationState(student, adapted, opponent), metrics

    stored = soft_labels.stored
    if stored and soft_labels.check:
        stored = stored._replace(check=functools.partial(soft_labels.check, augment))
    return Method(
        init,
        step,
        lambda state: state.student.variables,
        soft_labels.refresh,
        frozen=soft_labels.frozen,
        stored=stored,
    )


def images(batch: dict) -> list[tuple[str, jax.Array]]:
    """The streams that the batch has, labelled ones first, and their images."""
    return [(name, batch[name]["input"]) for name in ("labelled", "unlabelled") if name in batch]


def views(augment: Augment, batch: dict, rng: jax.Array) -> list[jax.Array]:
    """One view of the images of each stream. Augmentations of one key see the same random numbers."""
    return [augment(state.fold_in_name(rng, f"{name}/view"), image) for name, image in images(batch)]


def look(
    augment: Augment, soft_labels: SoftLabels, crops: int, batch: dict, rng: jax.Array
) -> tuple[dict[str, dict[str, jax.Array]], list[jax.Array], Placement | None]:
    """The columns of each stream, `crops` rows for one, their views, and where these come from."""
    streams, found, placements = {}, [], []
    for name, _ in images(batch):
        columns = batch[name]
        if name == "unlabelled":
            columns = columns | {"label": jnp.full_like(batch["audit"][name]["label"], -1)}
        if soft_labels.stored:
            own = {*soft_labels.stored.columns, "view"}
            columns = {
                k: x.reshape(-1, *x.shape[2:]) if k in own else jnp.repeat(x, crops, 0) for k, x in columns.items()
            }
        keys = state.fold_in_name(rng, f"{name}/view")
        if soft_labels.keys:
            keys = soft_labels.keys(columns["index"], columns["view"])
        if soft_labels.places:
            placements.append(placed(augment, keys, columns["input"])[1])
        rows, streams[name] = augmented(augment, keys, columns)
        found.append(rows)
    where = jax.tree.map(lambda *each: jnp.concatenate(each), *placements) if placements else None
    return streams, found, where


def together(mixes: Sequence[Mix]) -> list[Mix]:
    """One of all rows: of the same key, so of one share and one mask; partners stay within their stream."""
    if len(mixes) < 2:
        return [*mixes]
    first, second = (each.partner for each in mixes)
    return [mixes[0]._replace(partner=jnp.concatenate([first, second + len(first)]))]


def mixed(mixes: Sequence[Mix], of: Callable[[dict[str, jax.Array]], Any], columns: dict[str, jax.Array]) -> Any:
    """`of` the columns, mixed where the rows are: as these losses are linear in their targets, but for what no gradient
    sees, that is the loss of the mixed target."""
    return blended(mixes[0], of, columns) if mixes else of(columns)


def soft_loss(objective: SoftObjective, logits: jax.Array, said: dict[str, jax.Array]) -> jax.Array:
    """The objective of the logits and one source's targets."""
    takes = inspect.signature(objective.func).parameters
    told = {"weight": said["weight"]}
    if "right" in takes:
        told["right"] = jnp.argmax(said["target"], -1) == said["label"]
    return objective(logits, said["target"], **told)


def opposed(
    head: Model, params: Any, before: state.TrainState, student: jax.Array, teacher: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The adversary's loss, the mean of the binary cross-entropies of teachers, 1, and students, 0; and the student's,
    who is to be taken for a teacher. Neither moves what the other trains."""

    def score(params, logits):
        return head.apply({"params": params, **before.model_state}, jax.nn.log_softmax(logits), train=True)[0]

    real, fake = score(params, teacher), score(params, jax.lax.stop_gradient(student))
    telling = (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))) / 2
    return telling, jnp.mean(jax.nn.softplus(-score(jax.lax.stop_gradient(params), student)))
