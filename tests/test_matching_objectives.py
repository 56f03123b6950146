"""Similarity distribution matching and ConR against loop-form NumPy in float64, and at their edges."""

import cmath
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import assert_close, assert_equals_loop, cosine, in_float64

from labelfx import objectives

LABELS = np.array([0, 1, 0, 2])

matching = jax.jit(jax.value_and_grad(objectives.similarity_distribution_matching, argnums=(0, 1)))
conr = jax.jit(jax.value_and_grad(objectives.conr, argnums=(0,)))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def loop_matching(image, text, labels, temperature, epsilon):
    total = 0
    for rows, others in ((image, text), (text, image)):
        for row, label in zip(rows, labels, strict=True):
            scores = [cosine(row, other) / temperature for other in others]
            largest = max(s.real for s in scores)
            log_sum = largest + cmath.log(sum(cmath.exp(s - largest) for s in scores))
            for s, other in zip(scores, labels, strict=True):
                match = (label == other) / sum(label == each for each in labels)
                total += cmath.exp(s - log_sum) * (s - log_sum - math.log(match + epsilon)) / len(labels)
    return total


@pytest.mark.parametrize("temperature", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("labels", [LABELS, np.arange(4), np.zeros(4, int), np.array([5])])
def test_matching_equals_the_loop_form(labels, temperature):
    image, text = normal(0, 2, len(labels), 3)
    settings = dict(temperature=temperature, epsilon=1e-8)
    assert_equals_loop(matching, loop_matching, image, text, constants=(labels,), rtol=1e-11, **settings)


def test_matching_of_right_and_wrong_pairs():
    eye = np.eye(4)
    settings = dict(temperature=0.005, epsilon=1e-8)
    right, _ = in_float64(matching, eye, eye, np.arange(4), **settings)
    np.testing.assert_allclose(right, -2 * np.log1p(1e-8), atol=1e-15)
    wrong, _ = in_float64(matching, eye, np.roll(eye, 1, axis=0), np.arange(4), **settings)
    assert_close(wrong, -2 * math.log(1e-8))


TARGETS = np.array([1.0, 1.5, 4.0, 9.0, 4.5, 30.0])
PREDICTIONS = np.array([1.2, 4.1, 3.9, 1.1, 4.4, 80.0])
WEIGHTS = np.array([1.0, 2.0, 0.5, 3.0, 1.5, 1.0])


def loop_conr(z, targets, predictions, weights, window, temperature, distance_scale):
    total = 0
    for i, anchor in enumerate(z):
        positives, log_terms, negatives = [], [], 0
        for j, row in enumerate(z):
            score, distance = cosine(anchor, row) / temperature, abs(targets[i] - targets[j])
            if j != i and distance <= window:
                positives.append(score)
                log_terms.append(score)
            elif j != i and abs(predictions[i] - predictions[j]) <= window:
                negatives += 1
                log_terms.append(score + math.log(weights[i] * math.exp(distance_scale * distance)))
        if positives and negatives:
            largest = max(s.real for s in log_terms)
            log_sum = largest + cmath.log(sum(cmath.exp(s - largest) for s in log_terms))
            total += sum(log_sum - s for s in positives) / len(positives)
    return total / len(z)


@pytest.mark.parametrize("temperature", [0.005, 0.07, 1.0])
@pytest.mark.parametrize("window", [0.5, 1.0, 5.0])
def test_conr_equals_the_loop_form(window, temperature):
    constants = (TARGETS, PREDICTIONS, WEIGHTS)
    settings = dict(window=window, temperature=temperature, distance_scale=0.1)
    assert_equals_loop(conr, loop_conr, normal(0, 6, 3), constants=constants, **settings)
    value, _ = in_float64(conr, normal(0, 6, 3), *constants, **settings)
    assert value > 0


def test_conr_counts_neither_anchors_without_negatives_nor_those_without_positives():
    z, settings = normal(0, 3, 4), dict(window=1.0, temperature=0.07, distance_scale=0.01)
    ones = np.ones(3)
    for targets, predictions in (
        (np.array([0.0, 0.1, 50.0]), np.array([0.0, 0.1, 50.0])),  # predictions agree with the targets
        (np.array([0.0, 20.0, 50.0]), np.zeros(3)),  # nobody is near
    ):
        value, (gradient,) = in_float64(conr, z, targets, predictions, ones, **settings)
        assert value == 0
        assert not np.any(gradient)


def test_conr_takes_a_weight_of_0():
    """The limit of small ones: of an anchor with positives and of one with none."""
    constants = [np.array([0.0, 0, 1, 1, 5, 2.5]), np.zeros(6)]
    z, settings = normal(0, 6, 3), dict(window=0.5, temperature=0.5, distance_scale=0.01)
    for zeros in ([4], [0], [0, 4], range(6)):
        found = []
        for least in (0.0, 1e-30):
            weights = np.ones(6)
            weights[list(zeros)] = least
            found.append(in_float64(conr, z, *constants, weights, **settings))
        (value, (gradient,)), (limit, (slope,)) = found
        np.testing.assert_allclose(value, limit, rtol=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=1e-12, atol=1e-15)


def test_edges():
    image, text = (jnp.asarray(z, jnp.bfloat16) for z in normal(0, 2, 4, 5))
    value, gradients = matching(image, text, LABELS, temperature=0.02, epsilon=1e-8)
    assert value.dtype == jnp.float32
    assert gradients[0].dtype == jnp.bfloat16
    value, gradients = matching(jnp.zeros((4, 5)), jnp.ones((4, 5)), LABELS, temperature=0.005, epsilon=1e-8)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradients))
    settings = dict(window=1.0, temperature=0.005, distance_scale=0.01)
    constants = (jnp.asarray(z, jnp.float32) for z in (TARGETS, PREDICTIONS, WEIGHTS))
    value, (gradient,) = conr(jnp.zeros((6, 3), jnp.bfloat16), *constants, **settings)
    assert value.dtype == jnp.float32
    assert np.isfinite(value)
    assert not np.any(gradient)
    value, _ = conr(jnp.ones((1, 3)), jnp.ones(1), jnp.ones(1), jnp.ones(1), **settings)
    assert value == 0


def test_errors_say_what_is_allowed():
    z, settings = jnp.ones((4, 3)), dict(temperature=0.1, epsilon=1e-8)
    with pytest.raises(ValueError, match="image and text must have one shape"):
        objectives.similarity_distribution_matching(z, z[:2], jnp.zeros(4, int), **settings)
    with pytest.raises(ValueError, match=r"labels must have shape \[B\] for embeddings of \[B, D\], got \(3,\)"):
        objectives.similarity_distribution_matching(z, z, jnp.zeros(3, int), **settings)
    settings = dict(window=1.0, temperature=0.1, distance_scale=0.01)
    with pytest.raises(ValueError, match=r"must be \[B, D\] and targets, predictions and weights \[B\], got \(4, 3\)"):
        objectives.conr(z, jnp.ones((4, 1)), jnp.ones(4), jnp.ones(4), **settings)
