"""Distillation objectives against loop-form NumPy in float64, and at their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import sigmoid, softmax, worst_error

from labelfx.objectives import distillation

kd = jax.jit(jax.value_and_grad(distillation.kd, argnums=(0, 1)))


def two_logits(batch, classes, scale=3.0):
    rng = np.random.default_rng(batch)
    return scale * rng.normal(size=(batch, classes)), scale * rng.normal(size=(batch, classes))


def loop_probabilities(row, temperature):
    scores = [np.exp((x - max(row)) / temperature) for x in row]
    return [s / sum(scores) for s in scores]


def loop_kd(student, teacher, temperature):
    """(value, gradient by the student, gradient by the teacher) from T^2 sum p log(p / q), row by row."""
    batch, total = len(student), 0.0
    by_student, by_teacher = np.zeros_like(student), np.zeros_like(teacher)
    for i in range(batch):
        q, p = loop_probabilities(student[i], temperature), loop_probabilities(teacher[i], temperature)
        divergence = sum(pk * np.log(pk / qk) for pk, qk in zip(p, q, strict=True))
        total += temperature**2 * divergence / batch
        for k, (pk, qk) in enumerate(zip(p, q, strict=True)):
            by_student[i, k] = temperature * (qk - pk) / batch
            by_teacher[i, k] = temperature * pk * (np.log(pk / qk) - divergence) / batch
    return total, by_student, by_teacher


@pytest.mark.parametrize("batch,classes", [(1, 2), (3, 4), (8, 5)])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 4.0])
def test_kd_equals_the_loop_form(batch, classes, temperature):
    student, teacher = two_logits(batch, classes)
    with jax.enable_x64(True):
        value, gradients = kd(jnp.asarray(student), jnp.asarray(teacher), temperature=temperature)
    expected, *expected_gradients = loop_kd(student, teacher, temperature)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for actual, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-12 * np.max(np.abs(wanted)))


def test_kd_by_hand():
    """Teacher (3/4, 1/4), student (1/2, 1/2) at temperature 2; the division by T undone by the factor in the logits."""
    teacher = 2 * np.log([[3.0, 1.0]])
    expected = 4 * (0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5))
    np.testing.assert_allclose(distillation.kd(np.zeros((1, 2)), teacher, temperature=2.0), expected, rtol=1e-6)


def test_equal_logits_are_a_minimum():
    logits = np.asarray(two_logits(4, 3)[0], np.float32)
    value, gradients = kd(logits, logits, temperature=3.0)
    assert value == 0
    np.testing.assert_allclose(gradients, np.zeros((2, 4, 3)), atol=1e-6)


def test_high_temperature_is_the_squared_distance_of_centred_logits():
    """Hinton et al. 2015, section 2.1: the gradient tends to (z - v) / C for logits of mean zero."""
    student, teacher = (z - z.mean(axis=1, keepdims=True) for z in two_logits(3, 4))
    with jax.enable_x64(True):
        _, (gradient, _) = kd(jnp.asarray(student), jnp.asarray(teacher), temperature=1e5)
    np.testing.assert_allclose(gradient, (student - teacher) / 4 / 3, atol=1e-4)


def test_extreme_logits_and_low_temperature_stay_finite():
    student = np.array([[80.0, -80.0], [-80.0, 80.0]], np.float32)
    teacher = np.array([[-80.0, 80.0], [-80.0, 80.0]], np.float32)
    value, gradients = kd(student, teacher, temperature=0.05)
    np.testing.assert_allclose(value, 0.05**2 * 3200 / 2, rtol=1e-5)
    assert np.all(np.isfinite(gradients))
    np.testing.assert_allclose(gradients[0], 0.05 * np.array([[1.0, -1], [0, 0]]) / 2, rtol=1e-5)


def test_bfloat16_is_computed_in_float32():
    student, teacher = (jnp.asarray(z, jnp.bfloat16) for z in two_logits(4, 3))
    value, gradients = kd(student, teacher, temperature=2.0)
    exact, exact_gradients = kd(student.astype(jnp.float32), teacher.astype(jnp.float32), temperature=2.0)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    assert gradients[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(gradients[0].astype(jnp.float32), exact_gradients[0], atol=1e-2)


def test_shapes_are_checked():
    message = r"student_logits and teacher_logits must have one shape \[..., C\], got \(4, 3\) and \(1, 3\)"
    with pytest.raises(ValueError, match=message):
        distillation.kd(jnp.ones((4, 3)), jnp.ones((1, 3)), temperature=1.0)
    with pytest.raises(ValueError, match=r"got \(3,\) and \(3,\)"):
        distillation.kd(jnp.ones(3), jnp.ones(3), temperature=1.0)


# What is weighed, what a teacher does not know, several labels, focal and negative distillation: loops in complex.

ROWS = 6
WEIGHT = np.array([1.0, 0.0, 0.3, 2.5, 1.0, 0.7])
RIGHT = np.array([True, False, True, True, False, False])
KNOWN = np.random.default_rng(3).random((ROWS, 4)) < 0.6
KNOWN[0], KNOWN[4], KNOWN[5] = True, False, np.arange(4) == 2  # all, none, one


def mean_over_said(losses, weight, said):
    """Python floats or complex numbers: the sum over rows that count, over their number."""
    rows = [i for i in range(len(losses)) if said[i] and weight[i] > 0]
    return sum(weight[i] * losses[i] for i in rows) / max(1, len(rows))


def loop_divergences(student, teacher, temperature, known):
    """KL(teacher || student) of each row over the classes that its teacher knows."""
    losses = []
    for z, v, knows in zip(student, teacher, known, strict=True):
        classes = np.flatnonzero(knows)
        p, q = ([*softmax(each[classes] / temperature)] if len(classes) else [] for each in (v, z))
        losses.append(sum(a * (np.log(a) - np.log(b)) for a, b in zip(p, q, strict=True)))
    return losses


def loop_binary(student, teacher, temperature, known):
    losses = []
    for z, v, knows in zip(student, teacher, known, strict=True):
        total = 0
        for c in np.flatnonzero(knows):
            p, q = sigmoid(v[c] / temperature), sigmoid(z[c] / temperature)
            total += p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        losses.append(total)
    return losses


def loop_negative(student, negative, temperature):
    losses = []
    for z, v in zip(student, negative, strict=True):
        p, q = softmax(v / temperature), softmax(z)
        losses.append(-sum(a * np.log(1 - b) for a, b in zip(p, q, strict=True)))
    return losses


def worst_of_both(objective, loop, student, teacher, *columns, **keys):
    """Of the gradient by the student and of that by the teacher."""
    found = [worst_error(objective, lambda z: loop(z, teacher), student, teacher, *columns, **keys)]
    swapped = lambda v, z, *columns, **keys: objective(z, v, *columns, **keys)  # noqa: E731
    found.append(worst_error(swapped, lambda v: loop(student, v), teacher, student, *columns, **keys))
    print("worst error", max(found))
    return max(found)


@pytest.mark.parametrize("weight", [None, WEIGHT, np.zeros(ROWS)], ids=["alike", "weights", "none"])
@pytest.mark.parametrize("temperature", [0.7, 3.0])
@pytest.mark.parametrize("name, loop", [("kd", loop_divergences), ("binary_kd", loop_binary)])
def test_weights_and_classes_that_a_teacher_does_not_know(name, loop, temperature, weight):
    """Also the gradient by the logits of a teacher that knows all; by those that it does not know there is none."""
    objective = getattr(distillation, name)
    student, teacher = two_logits(ROWS, 4)
    weights = np.ones(ROWS) if weight is None else weight

    def whole(student, teacher, known=np.ones((ROWS, 4), bool)):  # noqa: B008
        losses = loop(student, teacher, temperature, known)
        return temperature**2 * mean_over_said(losses, weights, known.any(1))

    assert worst_of_both(objective, whole, student, teacher, weight, temperature=temperature) < 1e-12
    blank = np.where(KNOWN, teacher, -np.inf)
    some = lambda z: whole(z, np.where(KNOWN, teacher, 0), KNOWN)  # noqa: E731
    assert worst_error(objective, some, student, blank, weight, temperature=temperature) < 1e-12
    by_teacher = jax.grad(objective, argnums=1)(jnp.asarray(student), jnp.asarray(blank), temperature=temperature)
    assert np.all(np.isfinite(by_teacher)) and np.all(np.asarray(by_teacher)[~KNOWN] == 0)


def test_no_probability_moves_between_known_and_unknown_classes():
    """What a teacher does not know has no gradient, and of one class that it knows there is nothing to learn."""
    student, teacher = two_logits(ROWS, 4)
    _, (gradient, _) = kd(jnp.asarray(student), jnp.asarray(np.where(KNOWN, teacher, -np.inf)), temperature=2.0)
    assert np.all(np.asarray(gradient)[~KNOWN] == 0) and np.all(gradient[4:] == 0)
    np.testing.assert_allclose(np.sum(gradient, -1), 0, atol=1e-6)


@pytest.mark.parametrize("base, focus", [(1.0, 5.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weights"])
def test_focal_kd_equals_the_loop_form(weight, base, focus):
    student, teacher = two_logits(ROWS, 4)
    weights = np.ones(ROWS) if weight is None else weight

    def loop(student, teacher, known=np.ones((ROWS, 4), bool)):  # noqa: B008
        losses = loop_divergences(student, teacher, 5.0, known)
        return mean_over_said(
            [(base + focus * r) * x for r, x in zip(RIGHT, losses, strict=True)], weights, known.any(1)
        )

    settings = {"temperature": 5.0, "base": base, "focus": focus}
    assert worst_of_both(distillation.focal_kd, loop, student, teacher, RIGHT, weight, **settings) < 1e-12
    blank, known = np.where(KNOWN, teacher, -np.inf), lambda z: loop(z, np.where(KNOWN, teacher, 0), KNOWN)
    assert worst_error(distillation.focal_kd, known, student, blank, RIGHT, weight, **settings) < 1e-12


@pytest.mark.parametrize("weight", [None, WEIGHT, np.zeros(ROWS)], ids=["alike", "weights", "none"])
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_negative_kd_equals_the_loop_form(temperature, weight):
    student, negative = two_logits(ROWS, 4)
    weights = np.ones(ROWS) if weight is None else weight

    def loop(student, negative):
        return mean_over_said(loop_negative(student, negative, temperature), weights, np.ones(ROWS, bool))

    settings = {"temperature": temperature}
    assert worst_of_both(distillation.negative_kd, loop, student, negative, weight, **settings) < 1e-12


def test_negative_kd_at_its_edges():
    """log(1 - q) keeps its digits where q is near 0 and near 1, also where q is 1 to rounding; gradients are finite."""
    gap = np.array([500.0, 30.0, 5.0, -30.0])
    student, negative = np.stack([gap, np.zeros(4)], 1), np.tile([900.0, 0.0], (4, 1))
    each = jax.vmap(jax.value_and_grad(lambda z, v: distillation.negative_kd(z[None], v[None], temperature=1.0)))
    with jax.enable_x64(True):
        found, gradient = map(np.asarray, each(jnp.asarray(student), jnp.asarray(negative)))
    np.testing.assert_allclose(found, np.log1p(np.exp(gap)), rtol=1e-12)
    np.testing.assert_allclose(gradient[:, 0], 1 / (1 + np.exp(-gap)), rtol=1e-12)


def test_binary_kd_is_kd_of_each_label_against_nothing():
    student, teacher = two_logits(ROWS, 4)

    def pairs(z):
        return np.stack([z, np.zeros_like(z)], -1)

    with jax.enable_x64(True):
        one = distillation.binary_kd(jnp.asarray(student), jnp.asarray(teacher), temperature=2.0)
        other = distillation.kd(*(jnp.asarray(pairs(z)) for z in (student, teacher)), temperature=2.0)
    np.testing.assert_allclose(one, 4 * np.asarray(other), rtol=1e-12)
