"""DCLR's weighted and noise negatives against loop-form NumPy in float64, and at their edges."""

import cmath

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import assert_close, assert_equals_loop, complex_step, cosine, in_float64, log1p

from labelfx import objectives
from labelfx.objectives import contrastive

dclr = jax.jit(jax.value_and_grad(objectives.dclr, argnums=(0, 1)))
instance_weights = jax.jit(objectives.instance_weights)
noise_negatives = jax.jit(objectives.noise_negatives, static_argnames="steps")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def loop_dclr(query, key, noise, weights, temperature):
    total = 0
    for i, q in enumerate(query):
        positive = cosine(q, key[i])
        negatives = [(weights[i][j], cosine(q, k)) for j, k in enumerate(key) if j != i]
        negatives += [(1, cosine(q, row)) for row in noise]
        total += log1p(sum(weight * cmath.exp((s - positive) / temperature) for weight, s in negatives))
    return total / len(query)


@pytest.mark.parametrize("temperature", [0.005, 0.05, 1.0])
@pytest.mark.parametrize("batch,noises", [(1, 2), (4, 3), (4, 0), (1, 0)])
def test_dclr_equals_the_loop_form(batch, noises, temperature):
    query, key, noise = normal(0, batch, 3), normal(1, batch, 3), normal(2, noises, 3)
    weights = (normal(3, batch, batch) > 0).astype(float)
    assert_equals_loop(dclr, loop_dclr, query, key, constants=(noise, weights), temperature=temperature)


def test_dclr_without_weights_is_contrast_with_keys_and_noise():
    """No noise: half of MoCo v3's loss over 2 temperature. No keys: InfoNCE against the noise as a queue."""
    query, key, noise = normal(0, 4, 3), normal(1, 4, 3), normal(2, 5, 3)
    value, _ = in_float64(dclr, query, key, noise[:0], np.ones((4, 4)), temperature=0.2)
    both = in_float64(jax.jit(objectives.moco_v3), query, query, key, key, temperature=0.2)
    assert_close(value, both / 2 / 0.4)
    value, _ = in_float64(dclr, query, key, noise, np.zeros((4, 4)), temperature=0.2)
    assert_close(value, in_float64(jax.jit(contrastive.info_nce_queue), query, key, noise, temperature=0.2))


def test_dclr_sends_no_gradient_to_noise():
    query, key, noise = normal(0, 3, 4, 5).astype(np.float32)
    by_noise = jax.jit(jax.grad(objectives.dclr, argnums=2))
    assert not np.any(by_noise(query, key, noise, np.ones((4, 4), np.float32), temperature=0.1))


def test_instance_weights_are_zero_from_the_threshold_on():
    query = np.array([[1.0, 0], [0, 2]])
    key = np.array([[3.0, 0], [1, 1]])
    weights = in_float64(instance_weights, query, key, threshold=1.0)
    np.testing.assert_array_equal(weights, [[0, 1], [1, 1]])
    weights = in_float64(instance_weights, query, key, threshold=0.5)
    np.testing.assert_array_equal(weights, [[0, 0], [1, 0]])


def loop_non_uniformity(noise, query, temperature):
    return sum(cmath.log(sum(cmath.exp(cosine(q, row) / temperature) for row in noise)) for q in query) / len(query)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_noise_negatives_equal_the_loop_form(steps):
    query, noise = normal(0, 3, 4), normal(1, 5, 4)
    moved = in_float64(noise_negatives, query, noise, temperature=0.05, step_size=0.1, steps=steps)
    expected = noise
    for _ in range(steps):
        gradient = complex_step(lambda z: loop_non_uniformity(z, query, 0.05), expected)
        expected = expected + 0.1 * gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    assert_close(moved, expected, 1e-11)


def test_noise_gets_harder():
    query, key, noise = normal(0, 4, 3), normal(1, 4, 3), normal(2, 5, 3)
    moved = in_float64(noise_negatives, query, noise, temperature=0.05, step_size=0.1, steps=5)
    losses = [in_float64(dclr, query, key, z, np.ones((4, 4)), temperature=0.05)[0] for z in (noise, moved)]
    assert losses[1] > losses[0] + 0.1


def test_edges():
    query, key, noise = (jnp.asarray(z, jnp.bfloat16) for z in normal(0, 3, 4, 5))
    weights = instance_weights(key, query, threshold=0.3)
    assert weights.dtype == jnp.float32
    value, gradients = dclr(query, key, noise, weights, temperature=0.05)
    assert value.dtype == jnp.float32
    assert all(gradient.dtype == jnp.bfloat16 for gradient in gradients)
    zeros = jnp.zeros((4, 5))
    moved = noise_negatives(zeros, zeros, temperature=0.005, step_size=1e-3, steps=2)
    np.testing.assert_array_equal(moved, zeros)
    value, gradients = dclr(zeros, zeros, zeros, weights, temperature=0.005)
    assert np.isfinite(value)
    assert not np.any(gradients)
    with pytest.raises(ValueError, match="query and key must have one shape"):
        objectives.dclr(query, key[:2], noise, weights, temperature=0.1)
