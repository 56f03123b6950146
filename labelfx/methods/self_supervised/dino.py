"""DINO: self-distillation from a moving average, centred and sharpened (Caron et al. 2021, ICCV, Algorithm 1)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Head, Positive, PositiveInt, Probability
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.self_supervised.siamese import cosine_momentum
from labelfx.methods.self_supervised.swav import unit_prototypes
from labelfx.models import Model, heads, stack
from labelfx.objectives import clustering
from labelfx.objectives.contrastive import normalise


class DinoState(NamedTuple):
    """The student and its optimiser, the teacher, the centre of its scores (float32 [K]), the steps done (int32)."""

    student: state.TrainState
    teacher_params: Any
    teacher_model_state: Any
    center: jax.Array
    done: jax.Array


def dino(
    model: Model,
    tx: optax.GradientTransformation,
    steps: int,
    *,
    augment: Augment,
    projector: Head,
    prototypes: PositiveInt,
    momentum: Probability,
    final_momentum: Probability,
    student_temperature: Positive,
    teacher_temperature: Positive,
    center_momentum: Probability,
) -> Method:
    """The student learns the teacher's distribution over `prototypes` for the other of two views.

    Scores are the products of L2-normalised embeddings with prototypes of unit length, by weight normalisation: the
    gradient goes through the scaling. After each descent the teacher follows the student by a moving average of
    parameters, whose momentum goes from `momentum` to `final_momentum` by half a cosine, and the centre follows the
    mean of the teacher's scores. `center_momentum` 1 is no centring. Each network takes both views in one forward pass;
    BatchNorm, where there is any, keeps statistics of its own in each. Evals read the teacher.

    Left out of the paper: small local crops (the student, too, sees the two global views only), the warm-up of the
    teacher's temperature, the last layer frozen in the first epoch, the growing weight decay, and a second augmentation
    for one of the views (BYOL's, see `siamese`). Its projector has three layers with GELU, 2048 wide, and 256 outputs;
    `heads.projector` has ReLU.

    Metrics: `loss`; `entropies` of the teacher's distributions; `embedding_std` of the student's embeddings;
    `momentum`. Without centring `usage_entropy` goes to 0, without sharpening `assignment_entropy` to log K.
    """
    net = stack(backbone=model, projector=projector, prototypes=heads.prototypes(features=prototypes))
    temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}

    def init(rng, batch):
        student = state.create(net, tx, state.fold_in_name(rng, "model"), batch["unlabelled"]["input"])
        # Copies: donated buffers must not be shared between the two networks.
        teacher_params, teacher_model_state = jax.tree.map(jnp.copy, (student.params, student.model_state))
        return DinoState(student, teacher_params, teacher_model_state, jnp.zeros(prototypes), jnp.zeros((), jnp.int32))

    def step(old, batch, rng):
        rng_a, rng_b, rng_student, rng_teacher = state.named(
            rng, "unlabelled/a", "unlabelled/b", "model/student", "model/teacher"
        )
        image = batch["unlabelled"]["input"]
        # Row by row, not view after view: a device then holds both views of its own rows, and none has to move.
        views = jax.lax.collapse(jnp.stack([augment(rng_a, image), augment(rng_b, image)], 1), 0, 2)

        def forward(params, model_state, rng_model):
            variables = {"params": unit_prototypes(params), **model_state}
            outputs, model_state = net.apply(variables, views, train=True, rng=rng_model)
            return outputs["prototypes"].reshape(len(image), 2, -1), outputs["projector"], model_state

        teacher, _, teacher_model_state = forward(old.teacher_params, old.teacher_model_state, rng_teacher)

        def loss_fn(params):
            scores, z, model_state = forward(params, old.student.model_state, rng_student)
            loss = clustering.dino(scores[:, 0], scores[:, 1], teacher[:, 0], teacher[:, 1], old.center, **temperatures)
            return loss, (z, model_state)

        (loss, (z, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.student.params)
        student = state.descend(old.student, tx, gradient, model_state)
        decay = cosine_momentum(old.done / steps, momentum, final_momentum)
        metrics = {
            "loss": loss,
            "embedding_std": jnp.mean(jnp.std(normalise(z), 0)),
            "momentum": decay,
            **clustering.entropies(jax.nn.softmax((teacher[:, 0] - old.center[None]) / teacher_temperature)),
        }
        teacher_params = state.ema(old.teacher_params, student.params, decay, where=student.moved)
        center = state.ema(old.center, jnp.mean(teacher, (0, 1)), center_momentum)
        return DinoState(student, teacher_params, teacher_model_state, center, old.done + 1), metrics

    return Method(init, step, lambda s: {"params": s.teacher_params, **s.teacher_model_state})
