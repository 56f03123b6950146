"""Loop forms in NumPy, and their gradients by the complex step: exact to rounding, without a derivative by hand."""

import jax
import jax.numpy as jnp
import numpy as np

STEP = 1e-100  # imaginary: nothing is subtracted, so none is too small


def complex_gradient(loss, x):
    """Of a scalar function that is analytic in every entry of x, and branches on real parts alone."""
    found = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        moved = x.astype(np.complex128)
        moved[place] += STEP * 1j
        found[place] = np.imag(loss(moved)) / STEP
    return found


def worst_error(objective, loop, logits, *columns, gradient_of=None, **keys):
    """The largest error of the jitted objective's value and gradient in float64, relative to the largest there is.

    `gradient_of` is the loop form whose gradient is meant, where that is not the loop form of the value.
    """
    with jax.enable_x64(True):
        call = jax.jit(jax.value_and_grad(lambda logits, *columns: objective(logits, *columns, **keys)))
        value, gradient = call(jnp.asarray(logits), *(None if c is None else jnp.asarray(c) for c in columns))
    assert value.dtype == gradient.dtype == np.float64 and value.shape == ()
    value, gradient = np.asarray(value), np.asarray(gradient)
    wanted = loop(logits.astype(np.complex128)).real
    slopes = complex_gradient(gradient_of or loop, logits)
    return max(
        np.abs(value - wanted) / max(np.abs(wanted), 1e-3),
        np.max(np.abs(gradient - slopes)) / max(np.max(np.abs(slopes)), 1e-3),
    )


def softmax(z):
    e = np.exp(z - z.real.max())
    return e / e.sum()


def sigmoid(z):
    return 1 / (1 + np.exp(-z))
