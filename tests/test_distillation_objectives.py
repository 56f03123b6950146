"""Distillation objectives against loop-form NumPy in float64, and at their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
