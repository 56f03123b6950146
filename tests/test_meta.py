"""Meta-gradients of k steps of SGD with momentum: both modes against a loop without a derivative of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from labelfx.loop import meta

CLASSES, ROWS, WIDTH, RATE, MOMENTUM = 3, 5, 4, 0.3, 0.9


def problem(steps):
    """Logistic regression whose class weights and soft labels are learnt; k batches and an outer batch."""
    rng = np.random.default_rng(0)
    inner_x, outer_x = rng.normal(size=(steps, ROWS, WIDTH)), rng.normal(size=(7, WIDTH))
    outer_y = rng.integers(0, CLASSES, 7)
    learnt = {"labels": rng.normal(size=(ROWS, CLASSES)), "weights": rng.normal(size=CLASSES)}
    return learnt, rng.normal(size=(WIDTH, CLASSES)), inner_x, outer_x, outer_y


def softmax(logits):
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def outer_after_loop(learnt, kernel, inner_x, outer_x, outer_y):
    """The outer loss after the inner loop, its gradients written out."""
    velocity = np.zeros_like(kernel)
    for x in inner_x:
        target = softmax(learnt["labels"]) * np.exp(learnt["weights"])[None]
        gradient = x.T @ (target.sum(-1, keepdims=True) * softmax(x @ kernel) - target) / ROWS
        velocity = MOMENTUM * velocity + gradient
        kernel = kernel - RATE * velocity
    return -np.mean(np.log(softmax(outer_x @ kernel))[np.arange(len(outer_y)), outer_y])


def central_differences(function, learnt, width=1e-5):
    gradient = {name: np.zeros_like(value) for name, value in learnt.items()}
    for name, value in learnt.items():
        for entry in np.ndindex(value.shape):
            ends = []
            for sign in (1, -1):
                moved = {key: array.copy() for key, array in learnt.items()}
                moved[name][entry] += sign * width
                ends.append(function(moved))
            gradient[name][entry] = (ends[0] - ends[1]) / (2 * width)
    return gradient


def labelfx_gradient(mode, learnt, kernel, inner_x, outer_x, outer_y, before_step=lambda inner: inner, **knobs):
    tx = optax.sgd(RATE, MOMENTUM)

    def inner_step(learnt, inner, x):
        kernel, opt_state = before_step(inner)

        def loss(kernel):
            target = jax.nn.softmax(learnt["labels"]) * jnp.exp(learnt["weights"])[None]
            return jnp.mean(optax.softmax_cross_entropy(x @ kernel, target))

        updates, opt_state = tx.update(jax.grad(loss)(kernel), opt_state)
        return optax.apply_updates(kernel, updates), opt_state

    def outer_loss(inner):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outer_x @ inner[0], outer_y))

    return jax.device_get(mode(inner_step, outer_loss, learnt, (kernel, tx.init(kernel)), inner_x, **knobs))


def largest_difference(left, right):
    return max(np.abs(left[name] - right[name]).max() for name in left)


@pytest.mark.parametrize("steps", (1, 5))
def test_both_modes_are_the_exact_gradient(steps):
    learnt, *rest = problem(steps)
    value = outer_after_loop(learnt, *rest)
    expected = central_differences(lambda learnt: outer_after_loop(learnt, *rest), learnt)
    with jax.enable_x64(True):
        found = [labelfx_gradient(mode, learnt, *rest) for mode in (meta.unrolled, meta.forward_mode)]
        found.append(labelfx_gradient(meta.unrolled, learnt, *rest, unroll=True))
    for loss, gradient in found:
        assert abs(loss - value) < 1e-14
        assert largest_difference(gradient, expected) < 1e-10
        assert largest_difference(gradient, found[0][1]) < 1e-15
    assert min(np.abs(expected[name]).max() for name in expected) > 1e-3
    print(f"k = {steps}: {largest_difference(found[0][1], expected):.1e} from central differences,", end=" ")
    print(f"{largest_difference(found[0][1], found[1][1]):.1e} between the modes")


def test_a_truncated_meta_gradient_is_another():
    """The last of five steps alone is not the meta-gradient."""
    learnt, *rest = problem(5)
    expected = central_differences(lambda learnt: outer_after_loop(learnt, *rest), learnt)
    with jax.enable_x64(True):
        value, gradient = labelfx_gradient(meta.unrolled, learnt, *rest, before_step=jax.lax.stop_gradient)
    assert abs(value - outer_after_loop(learnt, *rest)) < 1e-14
    assert largest_difference(gradient, expected) > 1e-3
