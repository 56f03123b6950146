"""VICReg and Barlow Twins against loop-form NumPy in float64, at their edges, and in the contrastive method."""

import cmath
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import assert_close, assert_equals_loop, in_float64
from recipes import recipe

from labelfx import config, objectives
from labelfx.config.annotations import Part
from labelfx.methods.self_supervised.contrastive import contrastive
from labelfx.models import Model

WEIGHTS = dict(invariance=25.0, variance=25.0, covariance=1.0)

vicreg = jax.jit(jax.value_and_grad(objectives.vicreg, argnums=(0, 1)))
barlow_twins = jax.jit(jax.value_and_grad(objectives.barlow_twins, argnums=(0, 1)))


def views(seed, batch, dim, scale=1.0):
    rng = np.random.default_rng(seed)
    z_a = scale * rng.normal(size=(batch, dim))
    return z_a, z_a + 0.5 * rng.normal(size=(batch, dim))


def loop_vicreg(z_a, z_b, invariance, variance, covariance):
    batch, dim = z_a.shape
    total = invariance * sum((x - y) ** 2 for x, y in zip(z_a.ravel(), z_b.ravel(), strict=True)) / (batch * dim)
    for z in (z_a, z_b):
        columns = [[x - sum(z[:, d]) / batch for x in z[:, d]] for d in range(dim)]
        for i, left in enumerate(columns):
            for j, right in enumerate(columns):
                entry = sum(x * y for x, y in zip(left, right, strict=True)) / max(1, batch - 1)
                if i != j:
                    total += covariance * entry**2 / dim
                else:
                    std = cmath.sqrt(entry + 1e-4)
                    total += variance * (1 - std if std.real < 1 else 0) / dim
    return total


@pytest.mark.parametrize("batch,dim", [(1, 2), (2, 3), (6, 4), (5, 1)])
@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_vicreg_equals_the_loop_form(batch, dim, scale):
    assert_equals_loop(vicreg, loop_vicreg, *views(batch, batch, dim, scale), **WEIGHTS)


def test_each_term_of_vicreg():
    """Four orthogonal sign patterns: variance 4 / 3, no covariance; doubled columns have covariance 4 / 3."""
    signs = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    only = {name: {other: float(other == name) for other in WEIGHTS} for name in WEIGHTS}
    for name, z_b, expected in (
        ("invariance", signs + 3, 9),
        ("variance", signs, 0),
        ("variance", np.ones((4, 2)), 1 - 0.01),
        ("covariance", signs, 0),
        ("covariance", signs[:, [0, 0]], 2 * (4 / 3) ** 2 / 2),
    ):
        assert_close(in_float64(vicreg, signs, z_b, **only[name])[0], expected)


def loop_barlow_twins(z_a, z_b, redundancy):
    columns = []
    for z in (z_a, z_b):
        centred = [[x - sum(z[:, d]) / len(z) for x in z[:, d]] for d in range(z.shape[1])]
        norms = [cmath.sqrt(sum(x * x for x in column)) for column in centred]
        columns.append([[x / n for x in column] for column, n in zip(centred, norms, strict=True)])
    total = 0
    for i, left in enumerate(columns[0]):
        for j, right in enumerate(columns[1]):
            entry = sum(x * y for x, y in zip(left, right, strict=True))
            total += (1 - entry) ** 2 if i == j else redundancy * entry**2
    return total


@pytest.mark.parametrize("batch,dim", [(3, 2), (6, 4), (5, 1)])
@pytest.mark.parametrize("redundancy", [0.0, 0.005, 1.0])
def test_barlow_twins_equals_the_loop_form(batch, dim, redundancy):
    assert_equals_loop(barlow_twins, loop_barlow_twins, *views(batch, batch, dim), redundancy=redundancy)


def test_barlow_twins_of_known_correlations():
    signs = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    for z_b, expected in (
        (3 * signs + 1, 0),  # scale and shift do not matter
        (-signs, 2 * 4),
        (signs[:, ::-1], 2 * 1 + 0.25 * 2),
        (np.ones((4, 2)), 2),
    ):
        value, gradients = in_float64(barlow_twins, signs, z_b, redundancy=0.25)
        np.testing.assert_allclose(value, expected, atol=1e-14)
        assert np.all(np.isfinite(gradients))


@pytest.mark.parametrize("objective", [partial(vicreg, **WEIGHTS), partial(barlow_twins, redundancy=0.005)])
def test_edges(objective):
    """bfloat16 is computed in float32; one row and constant columns stay finite; NaN is not hidden."""
    z_a, z_b = (jnp.asarray(z, jnp.float32) for z in views(0, 6, 4))
    low_a, low_b = z_a.astype(jnp.bfloat16), z_b.astype(jnp.bfloat16)
    value, gradients = objective(low_a, low_b)
    assert value.dtype == jnp.float32
    assert value == objective(low_a.astype(jnp.float32), low_b.astype(jnp.float32))[0]
    assert all(gradient.dtype == jnp.bfloat16 for gradient in gradients)
    for left, right in ((z_a[:1], z_b[:1]), (z_a.at[:, 1].set(0), z_b), (jnp.zeros((6, 4)), jnp.zeros((6, 4)))):
        value, gradients = objective(left, right)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradients))
    # 0.1 is not its own mean in float32. To shift a dimension of both views changes neither objective.
    constant = z_a.at[:, 1].set(0.1)
    assert_close(objective(constant, z_b)[0], objective(z_a.at[:, 1].set(0), z_b - 0.1 * jnp.eye(4)[1:2])[0], 1e-5)
    assert np.max(np.abs(objective(constant, z_b)[1][0])) < 1e3
    assert np.isnan(objective(z_a.at[2, 0].set(jnp.nan), z_b)[0])
    with pytest.raises(ValueError, match=r"z_a and z_b must have one shape \[B, D\], got \(6, 4\) and \(1, 4\)"):
        objective(z_a, z_b[:1])


@pytest.mark.parametrize("name,weights", [("vicreg", WEIGHTS), ("barlow_twins", {"redundancy": 0.005})])
def test_a_config_may_name_it_and_the_method_descends_on_it(name, weights):
    simclr = recipe("simclr")
    checked = config.check(simclr | {"method": simclr["method"] | {"objective": {"name": name, **weights}}})
    objective = config.build(Part("objectives", ("z_a", "z_b")), checked.method["objective"])

    def affine(width):
        def init(rng, x):
            return {"params": {"w": jax.random.normal(rng, (x[0].size, width))}}

        return Model(init, lambda v, x, *, train, rng=None: (x.reshape(len(x), -1) @ v["params"]["w"], {}))

    def noise(rng, images):
        return images + 0.1 * jax.random.normal(rng, images.shape)

    method = contrastive(affine(5), optax.sgd(1e-3), augment=noise, projector=affine(4), objective=objective)
    images = jax.random.uniform(jax.random.key(1), (8, 3, 3, 1))
    batch = {"unlabelled": {"input": images}, "audit": {"unlabelled": {"label": jnp.full(8, -1, jnp.int32)}}}
    state = method.init(jax.random.key(0), batch)
    step = jax.jit(method.step)
    losses = []
    for _ in range(5):
        state, metrics = step(state, batch, jax.random.key(2))
        losses.append(float(metrics["loss"]))
    assert all(later < earlier for earlier, later in zip(losses, losses[1:], strict=False))
    assert metrics["embedding_std"] > 0
    assert metrics["clamped"] == metrics["negative_weight"] == 0
