"""Meta Pseudo Labels: the teacher learns from how much its pseudo-labels help the student (Pham et al. 2021, CVPR,
section 2 and appendix A)."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import (
    Augment,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Optimizer,
    Positive,
    PositiveInt,
    Probability,
)
from labelfx.loop import state
from labelfx.loop.state import TrainState
from labelfx.methods import Method
from labelfx.methods.semi_supervised.consistency import accuracy
from labelfx.models import Model, apply_together
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.pseudo_label import confident, uda


class Views(NamedTuple):
    """Augmented images, float [B, ...]: the labelled ones with their labels, int [B], and two of the unlabelled."""

    labelled: jax.Array
    label: jax.Array
    weak: jax.Array
    strong: jax.Array


class Network(NamedTuple):
    """A classifier and its optimiser. apply: `(variables, batches, *, train, rng) -> (logits, model_state)`, of several
    batches of images the logits of all rows, batch after batch."""

    apply: Callable[..., Any]
    tx: optax.GradientTransformation


class Update(NamedTuple):
    """The updated networks, the teacher's gradient, h with its moving average, and the pseudo-labels, float [B, C]."""

    student: TrainState
    teacher: TrainState
    teacher_gradient: Any
    h: jax.Array
    baseline: jax.Array
    target: jax.Array
    metrics: dict[str, jax.Array]


def meta_update(
    student: TrainState,
    teacher: TrainState,
    baseline: jax.Array,
    views: Views,
    rng: jax.Array,
    *,
    student_net: Network,
    teacher_net: Network,
    teacher_loss: Callable[..., Any],
    pseudo_label: Callable[[jax.Array], jax.Array] | None,
    feedback: Literal["dot_product", "difference"],
    feedback_forward: Literal["frozen", "redrawn"],
    baseline_decay: float | None,
    label_smoothing: float,
    mpl_weight: float,
) -> Update:
    """The student S learns the pseudo-labels of the strong view and becomes S'; then the teacher learns from its own
    loss and from how S' does on the labels, h * CE(pseudo-label, teacher). Any float dtype.

    Losses are means over rows. Over the pseudo-labels of B rows drawn from the teacher, the mean of h * CE's gradient
    is 1 / B of that of E[L(S')], L the labelled loss, with "difference": exactly, and whatever the student's optimiser.
    With "dot_product" it is, for SGD, 1 / B of the unrolled gradient of soft labels, if the labelled gradient is taken
    at the student of the soft labels. The published step takes it at S', a bias of the order of the learning rate. A
    baseline scales the mean by its decay. The gradient of soft labels is the unrolled one itself; it goes through the
    student's optimiser, which must be differentiable: SGD is, Adam is not where a gradient is 0.

    Args:
      teacher_loss: `(logits of labelled, weak and strong together, label) -> (scalar, metrics)`.
      pseudo_label: `(the teacher's strong logits) -> int [B]`, or None for soft ones, the teacher's probabilities.
      feedback: h is L(S) - L(S') or its first order, <grad L(S'), S - S'>, which for SGD is the paper's
        eta <grad L(S'), grad L_pseudo(S)>. Either is positive when the student has improved.
      feedback_forward: the student's one forward pass over labelled and strong images gives L(S). That for L(S')
        repeats it ("frozen": dropout masks and the images of BatchNorm's statistics stay, so h is 0 if the student
        does), or sees the labelled images alone under new masks ("redrawn", the authors' code).
      baseline_decay: of the moving average, which h enters before it is taken off; None for no baseline.
      label_smoothing: of the pseudo-labels that the student learns.
    """
    rng_teacher, rng_student, rng_feedback = state.named(rng, "model/teacher", "model/student", "model/feedback")
    label, rows = views.label, len(views.label)

    batches = views.labelled, views.weak, views.strong
    logits, pull_back, teacher_state = jax.vjp(
        lambda params: teacher_net.apply(
            {"params": params, **teacher.model_state}, batches, train=True, rng=rng_teacher
        ),
        teacher.params,
        has_aux=True,
    )
    strong_logits = logits[-len(views.strong) :]
    if pseudo_label is None:
        target = jax.nn.softmax(strong_logits)
    else:
        target = jax.nn.one_hot(pseudo_label(strong_logits), logits.shape[1], dtype=logits.dtype)

    def classify(params, batches, rng):
        return student_net.apply({"params": params, **student.model_state}, batches, train=True, rng=rng)

    both = views.labelled, views.strong

    def student_loss(params, target):
        logits, model_state = classify(params, both, rng_student)
        loss = soft_cross_entropy(logits[rows:], optax.smooth_labels(target, label_smoothing))
        return loss, (logits[:rows], model_state)

    def labelled_loss(params):
        again = (both, rng_student) if feedback_forward == "frozen" else ((views.labelled,), rng_feedback)
        return cross_entropy(classify(params, *again)[0][:rows], label, label_smoothing=0.0)

    learn = jax.value_and_grad(student_loss, has_aux=True)
    (loss, (labelled_logits, model_state)), gradient = learn(student.params, target)
    descend = functools.partial(state.descend, student, student_net.tx, model_state=model_state)
    new_student = descend(gradient)
    if feedback == "dot_product":
        step = jax.tree.map(jnp.subtract, new_student.params, student.params)
        h = -jax.jvp(labelled_loss, (new_student.params,), (step,))[1]
    else:
        h = cross_entropy(labelled_logits, label, label_smoothing=0.0) - labelled_loss(new_student.params)
    advantage, baseline = subtract_baseline(h, baseline, baseline_decay)
    if pseudo_label is None:
        # dL(S') / dtarget. The student's gradient is linear in its labels, so nothing has to be unrolled: one
        # directional derivative of its loss will do.
        (ahead,) = jax.vjp(lambda g: descend(g).params, gradient)[1](jax.grad(labelled_loss)(new_student.params))
        slope = jax.grad(lambda t: jax.jvp(lambda p: student_loss(p, t)[0], (student.params,), (ahead,))[1])(target)

    def total_loss(logits):
        base_loss, metrics = teacher_loss(logits, label)
        strong_logits = logits[-len(views.strong) :]
        if pseudo_label is None:
            mpl_loss = jnp.sum(slope * jax.nn.softmax(strong_logits))
        else:
            mpl_loss = advantage * soft_cross_entropy(strong_logits, target)
        return base_loss + mpl_weight * mpl_loss, metrics

    (total, metrics), logits_gradient = jax.value_and_grad(total_loss, has_aux=True)(logits)
    (gradient,) = pull_back(logits_gradient)
    metrics |= {"loss": loss, "teacher_loss": total, "accuracy": jnp.mean(jnp.argmax(labelled_logits, -1) == label)}
    new_teacher = state.descend(teacher, teacher_net.tx, gradient, teacher_state)
    return Update(new_student, new_teacher, gradient, h, baseline, target, metrics)


class MetaPseudoLabelsState(NamedTuple):
    """Both networks with their optimisers, and the moving average of the student's variables that evals read."""

    student: TrainState
    teacher: TrainState
    average: Any
    baseline: jax.Array  # float32, the moving average of h
    done: jax.Array  # int32, the steps


def meta_pseudo_labels(
    classifier: Model,
    tx: optax.GradientTransformation,
    steps: int,
    *,
    weak: Augment,
    strong: Augment,
    teacher_optimizer: Optimizer,
    pseudo_label: Literal["hard_sampled", "hard_argmax", "soft"],
    feedback: Literal["dot_product", "difference"],
    feedback_forward: Literal["frozen", "redrawn"],
    baseline_decay: Fraction | None,
    label_smoothing: Fraction,
    mpl_weight: NonNegative,
    uda_weight: NonNegative,
    uda_ramp: PositiveInt,
    uda_temperature: Positive,
    uda_threshold: Probability,
    student_wait: NonNegativeInt,
    ema: Fraction,
) -> Method:
    """`meta_update` on weakly augmented labelled, weakly and strongly augmented unlabelled images. Student and teacher
    are `config.model` from different parameters; `config.optimizer` is the student's. Afterwards the paper fine-tunes
    the student, head and all, on the labels.

    `pseudo_label`: the paper samples; with "soft", `feedback` and `baseline_decay` only say what is logged.
    `mpl_weight` 0 is the control, a teacher that does not hear of its student. UDA's weight grows linearly over
    `uda_ramp` steps. For `student_wait` steps the student's updates are 0, while its schedule runs. `ema` is the decay
    of the average, of parameters and BatchNorm statistics. The teacher's statistics are those of the three views
    together, the student's those of the labelled and strong images.

    The authors' code has the opposite sign of h, and a feedback of soft labels whose gradient is 0. The decay of its
    average rises, min(ema, (1 + t) / (10 + t)) at step t; here it is `ema` from the student's start on, of which a long
    run keeps nothing. Its settings for
    CIFAR-10 with 4,000 labels: "redrawn", baseline 0.99, smoothing 0.15, UDA 8, 5000, 0.7, 0.6, wait 3000, ema 0.995.

    Metrics: `loss` of the student, `accuracy` of the student on the labelled images; `teacher_loss`, `labelled_loss`,
    `uda_loss`, `acceptance` by UDA's threshold, `teacher_accuracy`; `feedback`, which is h, and `baseline`;
    `pseudo_label_accuracy` against the truth, 0 where nobody knows it.

    Raises:
      ValueError: an optimiser accumulates gradients over steps.
    """

    def classify(variables, batches, *, train, rng):
        outputs, model_state = apply_together(classifier, variables, batches, train=train, rng=rng)
        return outputs["head"], model_state

    wait = optax.scale_by_schedule(lambda step: jnp.where(step < student_wait, 0.0, 1.0))
    student_net = Network(classify, optax.chain(tx, wait))
    teacher_net = Network(classify, teacher_optimizer(steps))
    refuse_accumulation({"config.optimizer": tx, "config.method.teacher_optimizer": teacher_net.tx})

    def init(rng, batch):
        rng_student, rng_teacher = state.named(rng, "model", "teacher")
        student = state.create(classifier, student_net.tx, rng_student, batch["labelled"]["input"])
        teacher = state.create(classifier, teacher_net.tx, rng_teacher, batch["labelled"]["input"])
        # A copy: donated buffers must not be shared between the two networks.
        average = jax.tree.map(jnp.copy, student.variables)
        return MetaPseudoLabelsState(student, teacher, average, jnp.zeros(()), jnp.zeros((), jnp.int32))

    def step(old, batch, rng):
        rng_labelled, rng_weak, rng_strong, rng_label = state.named(
            rng, "labelled/weak", "unlabelled/weak", "unlabelled/strong", "pseudo_label"
        )
        views = Views(
            labelled=weak(rng_labelled, batch["labelled"]["input"]),
            label=batch["labelled"]["label"],
            weak=weak(rng_weak, batch["unlabelled"]["input"]),
            strong=strong(rng_strong, batch["unlabelled"]["input"]),
        )
        draw = {
            "hard_sampled": functools.partial(jax.random.categorical, rng_label),
            "hard_argmax": functools.partial(jnp.argmax, axis=-1),
            "soft": None,
        }
        update = meta_update(
            old.student,
            old.teacher,
            old.baseline,
            views,
            rng,
            student_net=student_net,
            teacher_net=teacher_net,
            teacher_loss=functools.partial(
                uda_teacher_loss,
                label_smoothing=label_smoothing,
                weight=uda_weight * jnp.minimum(1.0, old.done / uda_ramp),
                temperature=uda_temperature,
                threshold=uda_threshold,
            ),
            pseudo_label=draw[pseudo_label],
            feedback=feedback,
            feedback_forward=feedback_forward,
            baseline_decay=baseline_decay,
            label_smoothing=label_smoothing,
            mpl_weight=mpl_weight,
        )
        truth = batch["audit"]["unlabelled"]["label"]
        metrics = update.metrics | {
            "feedback": update.h,
            "baseline": update.baseline,
            "pseudo_label_accuracy": accuracy(update.target, jnp.ones_like(truth), truth),
        }
        average = state.follow(old.average, update.student, ema)
        return MetaPseudoLabelsState(update.student, update.teacher, average, update.baseline, old.done + 1), metrics

    return Method(init, step, lambda state: state.average)


def refuse_accumulation(optimizers: dict[str, optax.GradientTransformation]) -> None:
    """ValueError where one of them (by its place in the configuration) accumulates: h is of an update at every step."""
    for name, tx in optimizers.items():
        if isinstance(tx.init({}), optax.MultiStepsState):
            raise ValueError(f"{name}.accumulate: must be 1, as every step's feedback is of its own update")


def uda_teacher_loss(logits, label, *, label_smoothing, weight, temperature, threshold):
    """Cross-entropy on the labels and UDA by this paper's conventions, with metrics, of [labelled, weak, strong]."""
    labelled, (weak, strong) = logits[: len(label)], jnp.split(logits[len(label) :], 2)
    labelled_loss = cross_entropy(labelled, label, label_smoothing=label_smoothing)
    uda_loss = uda(
        weak,
        strong,
        temperature=temperature,
        threshold=threshold,
        mask_on="sharpened",
        strict=False,
        divergence="ce",
    )
    return labelled_loss + weight * uda_loss, {
        "labelled_loss": labelled_loss,
        "uda_loss": uda_loss,
        "acceptance": jnp.mean(confident(jax.nn.softmax(weak / temperature), threshold), dtype=logits.dtype),
        "teacher_accuracy": jnp.mean(jnp.argmax(labelled, -1) == label),
    }


def subtract_baseline(h, baseline, decay):
    """h minus its moving average, and the average, which has h in it already; decay None: h."""
    if decay is None:
        return h, baseline
    baseline = state.ema(baseline, h, decay)
    return h - baseline, baseline


def soft_cross_entropy(logits, target):
    """Mean cross-entropy to probabilities [B, C]; unlike consistency losses it is differentiable in them."""
    return jnp.mean(optax.softmax_cross_entropy(logits, target))
