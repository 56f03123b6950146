"""W-MSE against loop-form NumPy in float64, at its edges, and in its method."""

import cmath
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import assert_close, assert_equals_loop, cosine, in_float64
from recipes import tiny

import labelfx
from labelfx.config import ConfigError
from labelfx.loop.state import named
from labelfx.methods.self_supervised.whitening import least_spread, whitening
from labelfx.models import Model
from labelfx.objectives import w_mse

compiled = jax.jit(jax.value_and_grad(w_mse, argnums=(0,)), static_argnames=("epsilon", "normalise"))


def views_of(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def permutations_of(seed, iterations, groups, size):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(groups * size).reshape(groups, size) for _ in range(iterations)])


def loop_cholesky(matrix):
    """Lower L with L L^T = matrix, by the textbook's recursion; complex matrices are symmetric, not Hermitian."""
    factor = np.zeros_like(matrix)
    for i in range(len(matrix)):
        for j in range(i + 1):
            rest = matrix[i, j] - sum(factor[i, k] * factor[j, k] for k in range(j))
            factor[i, j] = cmath.sqrt(rest) if i == j else rest / factor[j, j]
    return factor


def loop_whiten(rows, epsilon):
    size, dim = rows.shape
    centred = rows - sum(rows) / size
    covariance = sum(np.outer(row, row) for row in centred) / (size - 1)
    factor = loop_cholesky(((1 - epsilon) * covariance + epsilon * np.eye(dim)).astype(complex))
    whitened = np.zeros((size, dim), complex)
    for i, row in enumerate(centred):
        for j in range(dim):  # forward substitution
            whitened[i, j] = (row[j] - sum(factor[j, k] * whitened[i, k] for k in range(j))) / factor[j, j]
    return whitened


def loop_w_mse(views, permutations, epsilon, normalise):
    losses = []
    for permutation in permutations:
        for group in permutation:
            whitened = [loop_whiten(view[group], epsilon) for view in views]
            for left, right in combinations(whitened, 2):
                for x, y in zip(left, right, strict=True):
                    losses.append(2 - 2 * cosine(x, y) if normalise else sum((x - y) ** 2) / len(x))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    "views,dim,iterations,groups,size,epsilon",
    [(2, 2, 1, 2, 4, 0), (3, 3, 2, 1, 7, 0), (2, 3, 2, 2, 5, 0.1), (2, 3, 1, 2, 3, 0.01)],
)
def test_w_mse_equals_the_loop_form(views, dim, iterations, groups, size, epsilon, normalise):
    z = views_of(views, views, groups * size, dim)
    permutations = permutations_of(dim, iterations, groups, size)
    settings = dict(epsilon=epsilon, normalise=normalise)
    assert_equals_loop(compiled, loop_w_mse, z, constants=(permutations,), rtol=1e-11, **settings)


@pytest.mark.parametrize("normalise", [True, False])
def test_whitening_undoes_shifts_and_triangular_maps(normalise):
    """A Cholesky factor takes any lower triangular map with a positive diagonal with it, in each view on its own."""
    rng = np.random.default_rng(0)
    z, permutations = views_of(0, 2, 12, 3), permutations_of(0, 2, 2, 6)
    maps = np.tril(rng.normal(size=(2, 3, 3)), -1) + 3 * np.eye(3)
    mapped = z @ maps.transpose(0, 2, 1) + rng.normal(size=(2, 1, 3))
    settings = dict(epsilon=0, normalise=normalise)
    value, _ = in_float64(compiled, z, permutations, **settings)
    assert_close(in_float64(compiled, mapped, permutations, **settings)[0], value, 1e-11)
    same, _ = in_float64(compiled, np.stack([z[0], mapped[0]]), permutations_of(0, 1, 1, 12), **settings)
    assert value > 0.5
    assert abs(same - in_float64(compiled, np.stack([z[0], z[0]]), permutations_of(0, 1, 1, 12), **settings)[0]) < 1e-12


def test_collapsed_views_do_not_get_a_low_loss():
    """Views that agree to 1e-6 of noise of their own are whitened to unrelated rows: 2 - 2 cos is about 2."""
    z = np.ones((2, 64, 4)) + 1e-6 * views_of(0, 2, 64, 4)
    value, _ = in_float64(compiled, z, permutations_of(0, 1, 1, 64), epsilon=0, normalise=True)
    assert 1.7 < value < 2.3


@pytest.mark.parametrize("normalise", [True, False])
def test_float32_and_bfloat16(normalise):
    z, permutations = views_of(1, 2, 16, 3), permutations_of(1, 1, 2, 8)
    settings = dict(epsilon=0, normalise=normalise)
    value, (gradient,) = compiled(jnp.asarray(z, jnp.float32), permutations, **settings)
    expected, (expected_gradient,) = in_float64(compiled, z, permutations, **settings)
    assert value.dtype == jnp.float32
    assert_close(value, expected, 1e-5)
    assert_close(gradient, expected_gradient, 1e-4)
    low = jnp.asarray(z, jnp.bfloat16)
    value, (gradient,) = compiled(low, permutations, **settings)
    assert value.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
    assert_close(value, compiled(low.astype(jnp.float32), permutations, **settings)[0], 1e-6)


@pytest.mark.parametrize("normalise", [True, False])
def test_rows_that_are_all_equal(normalise):
    z = jnp.full((2, 12, 3), 0.1)  # not its own mean in float32
    value, (gradient,) = compiled(z, permutations_of(0, 1, 2, 6), epsilon=0.1, normalise=normalise)
    assert value == (2 if normalise else 0)
    assert not np.any(gradient)


def test_errors_say_what_is_allowed():
    z, settings = jnp.ones((2, 8, 4)), dict(epsilon=0.0, normalise=True)
    with pytest.raises(ValueError, match="a group of 4 rows has a singular covariance in 4 dimensions: .* more than 4"):
        w_mse(z, jnp.arange(8).reshape(1, 2, 4), **settings)
    message = r"must be \[V, B, D\] with V >= 2 and \[iterations, groups, n\] with n >= 2, got"
    for views, shape in ((z[0], (1, 2, 4)), (z[:1], (1, 2, 4)), (z, (2, 4)), (z, (1, 8, 1))):
        with pytest.raises(ValueError, match=message):
            w_mse(views, jnp.arange(8).reshape(shape), **settings)


def linear(width):
    def init(rng, x):
        return {"params": {"w": jax.random.normal(rng, (x[0].size, width))}}

    return Model(init, lambda variables, x, *, train, rng=None: (x.reshape(len(x), -1) @ variables["params"]["w"], {}))


def test_a_step_of_the_method_is_the_loop_form():
    """Rows of one image meet in every view, a fresh partition at each step and iteration cuts all views alike."""
    settings = dict(views=3, group_size=6, iterations=2, epsilon=0.0, normalise=True)
    method = whitening(linear(4), optax.sgd(0.1), augment=noise, projector=linear(2), **settings)
    images = views_of(3, 12, 2, 2, 1).astype(np.float32)
    batch = {"unlabelled": {"input": images}}
    state = method.init(jax.random.key(0), batch)
    weights = np.asarray(state.params["backbone"]["w"] @ state.params["projector"]["w"], np.float64)
    partitions = []
    for key in jax.random.split(jax.random.key(4)):
        rngs = named(key, "unlabelled/0", "unlabelled/1", "unlabelled/2")
        views = [np.asarray(noise(rng, images)).reshape(12, -1) @ weights for rng in rngs]
        orders = [np.asarray(jax.random.permutation(rng, 12)) for rng in named(key, "groups/0", "groups/1")]
        partitions += [order.tolist() for order in orders]
        expected = loop_w_mse(views, np.stack(orders).reshape(2, 2, 6), 0.0, True)
        pairs = [cosine(x, y) for left, right in combinations(views, 2) for x, y in zip(left, right, strict=True)]
        _, metrics = jax.jit(method.step)(state, batch, key)
        np.testing.assert_allclose(metrics["loss"], complex(expected).real, rtol=1e-4)
        np.testing.assert_allclose(metrics["positive_score"], np.mean(pairs).real, rtol=1e-4)
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(np.concatenate(views).T)))
        np.testing.assert_allclose(metrics["least_spread"], spread[0] / spread[-1], rtol=1e-4)
    assert len({tuple(order) for order in partitions}) == 4


def noise(rng, images):
    return images + 0.5 * jax.random.normal(rng, images.shape)


def test_least_spread_of_collapsed_rows_is_0():
    assert least_spread(jnp.full((8, 3), 0.25)) == 0
    assert least_spread(jnp.asarray(views_of(0, 8, 1) * np.ones((1, 3)), jnp.float32)) < 1e-3


@pytest.mark.parametrize(
    "change,message",
    [
        ({"group_size": 12}, "group_size = 12: must divide batch.unlabelled = 16"),
        ({"views": 1}, "views = 1: must be at least 2"),
        (
            {"group_size": 8, "epsilon": 0.0},
            "a group of 8 rows has a singular covariance in 8 dimensions: .* more than 8",
        ),
    ],
)
def test_the_method_refuses_what_cannot_be_whitened(change, message, tmp_path):
    config = tiny("whitening")
    with pytest.raises(ConfigError, match=f"config.method: {message}"):
        labelfx.train(config | {"method": config["method"] | change}, tmp_path)
