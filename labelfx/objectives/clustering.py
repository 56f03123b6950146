"""Online clustering: views are assigned to prototypes, and one view's assignment is predicted from the other.

Scores of any float dtype are computed on, and the results returned, in float32, or in float64 if they are float64.
"""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import NonNegativeInt, Positive
from labelfx.objectives.contrastive import at_least_float32

__all__ = ["dino", "sinkhorn", "swapped_prediction"]  # what a config may name


def sinkhorn(scores, *, epsilon: Positive, iterations: NonNegativeInt):
    """Soft assignments that use all prototypes alike, by Sinkhorn-Knopp (SwAV, Caron et al. 2020, NeurIPS).

    Each iteration gives all prototypes the same total over the rows, then each row a sum of 1. Ends with exact rows;
    the totals are the better the more iterations. In log space, so that epsilon may be low; a transport library would
    iterate to a tolerance and add a dependency for these two lines.

    Args:
        scores: float [N, K], similarities of N rows to K prototypes.
        epsilon: the weight of the entropy; the lower, the harder the assignments. The paper's is 0.05.
        iterations: the paper has 3; 0 gives softmax(scores / epsilon), which may use one prototype alone.

    Returns:
        [N, K], rows that sum to 1; differentiable.

    Raises:
        ValueError: if scores is not [N, K].
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape [N, K], got {scores.shape}")
    log_assignment = at_least_float32(scores) / epsilon
    for _ in range(iterations):
        log_assignment = jax.nn.log_softmax(log_assignment, axis=0)
        log_assignment = jax.nn.log_softmax(log_assignment, axis=1)
    return jax.nn.softmax(log_assignment, axis=1)


def swapped_prediction(scores_a, scores_b, *, temperature: Positive, epsilon: Positive, iterations: NonNegativeInt):
    """Cross-entropy of each view's prediction to the other's assignment (SwAV, Caron et al. 2020, NeurIPS).

    Each view is assigned by itself, over all B rows. No gradient flows through an assignment.

    Args:
        scores_a, scores_b: float [B, K], similarities of the two views to K prototypes.
        temperature: divides the scores that predict; the paper's is 0.1.
        epsilon, iterations: as for `sinkhorn`.

    Returns:
        A scalar, the sum of both directions, each a mean over B; the authors' code has half of it.

    Raises:
        ValueError: if the scores are not of one shape [B, K].
    """
    _check_scores("scores_a", scores_a, "scores_b", scores_b)
    scores_a, scores_b = at_least_float32(scores_a), at_least_float32(scores_b)
    target_a, target_b = (
        jax.lax.stop_gradient(sinkhorn(scores, epsilon=epsilon, iterations=iterations))
        for scores in (scores_a, scores_b)
    )
    return _cross_entropy(scores_a / temperature, target_b) + _cross_entropy(scores_b / temperature, target_a)


def dino(
    student_a,
    student_b,
    teacher_a,
    teacher_b,
    center,
    *,
    student_temperature: Positive,
    teacher_temperature: Positive,
):
    """Cross-entropy of the student's distribution of each view to the teacher's of the other, which is centred and
    sharpened (DINO, Caron et al. 2021, ICCV, Algorithm 1).

    No gradient reaches teacher or centre. A teacher's temperature below the student's sharpens.

    Args:
        student_a, student_b, teacher_a, teacher_b: float [B, K], scores of the two views.
        center: float [K], taken off the teacher's scores.
        student_temperature, teacher_temperature: divide the scores; the paper has 0.1 and 0.04 to 0.07.

    Returns:
        A scalar, the mean over both directions and B rows.

    Raises:
        ValueError: if student and teacher are not of one shape [B, K], or center not [K].
    """
    _check_scores("student_a", student_a, "teacher_b", teacher_b)
    _check_scores("student_b", student_b, "teacher_a", teacher_a)
    if center.shape != student_a.shape[1:]:
        raise ValueError(f"center must have shape [K] for scores of [B, K], got {center.shape} and {student_a.shape}")
    student_a, student_b = at_least_float32(student_a), at_least_float32(student_b)
    target_a, target_b = (
        jax.lax.stop_gradient(
            jax.nn.softmax((at_least_float32(teacher) - at_least_float32(center)[None]) / teacher_temperature)
        )
        for teacher in (teacher_a, teacher_b)
    )
    of_a = _cross_entropy(student_a / student_temperature, target_b)
    of_b = _cross_entropy(student_b / student_temperature, target_a)
    return (of_a + of_b) / 2


def entropies(assignments):
    """What tells a collapse, of float [N, K] with rows that sum to 1, in nats from 0 to log K.

    Returns:
        A dict of scalars: `assignment_entropy`, the mean of the rows' entropies (0 for hard assignments), and
        `usage_entropy`, the entropy of the mean row (0 where one prototype takes all).
    """
    assignments = at_least_float32(assignments)
    entropy = jax.scipy.special.entr
    return {
        "assignment_entropy": jnp.mean(jnp.sum(entropy(assignments), -1)),
        "usage_entropy": jnp.sum(entropy(jnp.mean(assignments, 0))),
    }


def _cross_entropy(logits, target):
    return jnp.mean(optax.softmax_cross_entropy(logits, target))


def _check_scores(name_a, scores_a, name_b, scores_b):
    if scores_a.ndim != 2 or scores_a.shape != scores_b.shape:
        raise ValueError(f"{name_a} and {name_b} must have one shape [B, K], got {scores_a.shape} and {scores_b.shape}")
