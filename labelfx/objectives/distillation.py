"""Distillation objectives: a student that matches the class probabilities of a teacher.

Logits are [..., C]: [B, C] of a class a row, [B, H, W, C] of a class a position. Those of a teacher may be
log-probabilities, which are logits of the same distribution. Each is differentiable in the teacher too: where that is
the student's own output or trains beside it, the method stops that gradient.
"""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import NonNegative, Positive
from labelfx.objectives._rows import mean_of_said
from labelfx.objectives.contrastive import at_least_float32


def kd(student_logits, teacher_logits, weight=None, *, temperature: Positive):
    """Knowledge distillation, T^2 KL(teacher || student) at temperature T (Hinton et al. 2015, section 2).

    The gradient with respect to the student's logits is T (student - teacher) / B in probabilities at temperature T;
    that of the cross-entropy to the teacher is the same. Classes that a teacher does not know, by logits of -inf, are
    in neither distribution: no probability moves between those that it knows and the others.

    Args:
      student_logits, teacher_logits: float [..., C]; computed on in float32, or in float64 if they are float64.
      weight: float [...], from 0 up: times the divergence; 0 leaves a row out, None is 1 for all.
      temperature: T, divides both logits.

    Returns:
      A scalar: the sum over rows of which the teacher knows a class and whose weight is above 0, over their number; 0
      without any.

    Raises:
      ValueError: the logits are not of one shape [..., C].
    """
    losses, known = _divergence(student_logits, teacher_logits, temperature)
    return temperature**2 * mean_of_said(losses, known, weight)


def binary_kd(student_logits, teacher_logits, weight=None, *, temperature: Positive):
    """`kd` for several labels a row: T^2 times the sum over labels of the KL divergence between two Bernoulli
    distributions, those of the teacher's and the student's sigmoids at temperature T.

    Arguments, result and errors are those of `kd`; labels that a teacher does not know, -inf, are left out.
    """
    student, teacher = _both(student_logits, teacher_logits, temperature)
    known = teacher > -jnp.inf
    teacher = jnp.where(known, teacher, 0)
    p = jax.nn.sigmoid(teacher)
    each = p * (jax.nn.log_sigmoid(teacher) - jax.nn.log_sigmoid(student))
    each += (1 - p) * (jax.nn.log_sigmoid(-teacher) - jax.nn.log_sigmoid(-student))
    return temperature**2 * mean_of_said(jnp.sum(each, -1, where=known), jnp.any(known, -1), weight)


def focal_kd(
    student_logits, teacher_logits, right, weight=None, *, temperature: Positive, base: NonNegative, focus: NonNegative
):
    """Focal distillation: KL(teacher || student) at temperature T, without T^2, times `base`, and times `base + focus`
    in rows where the teacher is right, so that the student does not unlearn them (Yan et al. 2021, CVPR, "Positive-
    Congruent Training"; 1 and 5 at temperature 5 in the code of margin-preserving training, Ricci et al. 2026).

    Args:
      right: bool [...]: the teacher's largest logit is that of the label.

    The other arguments, the result and the errors are those of `kd`.
    """
    losses, known = _divergence(student_logits, teacher_logits, temperature)
    return mean_of_said((base + focus * right.astype(losses.dtype)) * losses, known, weight)


def negative_kd(student_logits, negative_logits, weight=None, *, temperature: Positive):
    """Negative distillation: away from a teacher that was trained on bad rows (Li et al. 2022, "Diversifying Neural
    Dialogue Generation via Negative Distillation"), by the unlikelihood of its probabilities.

    The sum over classes of p (-log(1 - q)), p the negative teacher's probabilities at temperature T and q the student's
    at temperature 1. It grows as the logits do where q tends to 1, and its gradient stays finite.

    Args:
      student_logits, negative_logits: float [..., C], C from 2 up; computed on in float32, or in float64 if they are
        float64.
      weight: float [...], from 0 up: times the loss; 0 leaves a row out, None is 1 for all.

    Returns:
      A scalar, as `kd`.

    Raises:
      ValueError: the logits are not of one shape [..., C].
    """
    student, negative = _both(student_logits, negative_logits, 1)
    # 1 - q is the sum of the others: of the largest q it is added up, where subtracting would leave rounding alone
    largest = jax.nn.one_hot(jnp.argmax(student, -1), student.shape[-1], dtype=bool)
    rest = jax.nn.logsumexp(student, -1, where=~largest) - jax.nn.logsumexp(student, -1)
    log_q = jnp.where(largest, -1, jax.nn.log_softmax(student))
    log_rest = jnp.where(largest, rest[..., None], jnp.log1p(-jnp.exp(log_q)))
    losses = -jnp.sum(jax.nn.softmax(negative / temperature) * log_rest, -1)
    return mean_of_said(losses, jnp.ones(losses.shape, bool), weight)


def _both(student, teacher, temperature):
    if not student.ndim >= 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student_logits and teacher_logits must have one shape [..., C], got {student.shape} and {teacher.shape}"
        )
    student, teacher = (at_least_float32(logits) / temperature for logits in (student, teacher))
    return student, teacher


def _divergence(student, teacher, temperature):
    """KL(teacher || student) [...] over the classes that the teacher knows, and whether it knows one."""
    student, teacher = _both(student, teacher, temperature)
    known, lowest = teacher > -jnp.inf, jnp.finfo(student.dtype).min / 4
    student, teacher = (jnp.where(known, logits, lowest) for logits in (student, teacher))
    log_p, log_q = jax.nn.log_softmax(teacher), jax.nn.log_softmax(student)
    losses = optax.losses.kl_divergence_with_log_targets(log_q, log_p)
    return losses, jnp.any(known, -1)
