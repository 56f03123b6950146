"""Distillation objectives: a student that matches the class probabilities of a teacher."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Positive
from labelfx.objectives.contrastive import at_least_float32


def kd(student_logits, teacher_logits, *, temperature: Positive):
    """Knowledge distillation, T^2 KL(teacher || student) at temperature T (Hinton et al. 2015, section 2).

    The gradient with respect to the student's logits is T (student - teacher) / B in probabilities at temperature T;
    that of the cross-entropy to the teacher is the same. The loss is differentiable in the teacher too: where the
    teacher is the student's own output or trains beside it, the method stops that gradient.

    Args:
        student_logits, teacher_logits: float [B, C]; computed on in float32, or in float64 if they are float64.
        temperature: T, divides both logits.

    Returns:
        A scalar, the mean over the B rows of the sum over the C classes.

    Raises:
        ValueError: if the logits are not of one shape [B, C].
    """
    student, teacher = (at_least_float32(logits) / temperature for logits in (student_logits, teacher_logits))
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student_logits and teacher_logits must have one shape [B, C], got {student.shape} and {teacher.shape}"
        )
    divergence = optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(student), jax.nn.log_softmax(teacher))
    return temperature**2 * jnp.mean(divergence)
