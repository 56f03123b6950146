"""Conditional transport between positions and labels: loops in float64, edges, what both directions are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import worst_error
from toys import assert_beats

from labelfx.objectives.multilabel import asymmetric
from labelfx.objectives.transport import conditional_transport, navigated, patch_transport

LABEL = np.array([[1, 0, 1], [0, -1, 0], [1, 1, 1], [-1, 1, 0]], np.int8)
FOCAL = {"gamma_positive": 0.0, "gamma_negative": 2.0, "clip": 0.05, "focal_gradient": True, "unknown": "ignore"}


def points_and_centres():
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(4, 5, 6)), rng.normal(size=(3, 6))
    points[0, 3:] = 0  # padding
    return points, centres


def loop(points, centres):
    rows = []
    for row, label in zip(points, LABEL, strict=True):
        row, own = [x for x in row if np.any(x.real)], [e for e, y in zip(centres, label, strict=True) if y == 1]
        cosines = np.array([[(x @ e) / np.sqrt((x @ x) * (e @ e)) for e in own] for x in row])
        if not own:
            continue
        e = np.exp(cosines / 0.3)
        forward = sum(e[i, j] / e[i].sum() * (1 - cosines[i, j]) for i, j in np.ndindex(e.shape)) / len(row)
        backward = sum(e[i, j] / e[:, j].sum() * (1 - cosines[i, j]) for i, j in np.ndindex(e.shape)) / len(own)
        rows.append(forward + backward)
    return sum(rows) / len(rows)


def test_transport_is_the_loop_form():
    points, centres = points_and_centres()
    how = {"temperature": 0.3}
    of_centres = worst_error(
        lambda e: conditional_transport(jnp.asarray(points), e, LABEL, **how), lambda e: loop(points, e), centres
    )
    real = points[2:]  # a point of 0 is not one of the loop's, however little it moves
    of_points = worst_error(
        lambda x: conditional_transport(jnp.concatenate([points[:2], x]), jnp.asarray(centres), LABEL, **how),
        lambda x: loop(np.concatenate([points[:2], x]), centres),
        real,
    )
    print(of_centres, of_points)
    assert max(of_centres, of_points) < 1e-12


def test_the_objective_is_the_sum_and_reads_a_linear_head():
    points, centres = points_and_centres()
    logits, maps = np.random.default_rng(1).normal(size=(4, 3)), points.reshape(4, 5, 1, 6)
    with jax.enable_x64(True):
        how = FOCAL | {"transport": 0.7, "temperature": 0.3}
        found = patch_transport(logits, jnp.asarray(LABEL), maps, {"Dense_0": {"kernel": centres.T}}, **how)
        wanted = asymmetric(logits, jnp.asarray(LABEL), **FOCAL) + 0.7 * loop(points, centres)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    for rows, head in ((points[:, 0], {"Dense_0": {"kernel": centres.T}}), (maps, {"kernel": centres.T})):
        with pytest.raises(ValueError, match="patch_transport reads a map and a linear head, not positions"):
            patch_transport(jnp.asarray(logits, jnp.float32), LABEL, rows, head, **how)


def test_nothing_positive_and_nothing_real():
    call = jax.jit(jax.value_and_grad(lambda e, x, y: conditional_transport(x, e, y, temperature=0.01)))
    centres = jnp.eye(3)
    for points, label in ((jnp.ones((2, 4, 3)), -1), (jnp.zeros((2, 4, 3)), 1), (jnp.zeros((2, 4, 3)), 0)):
        value, gradient = call(centres, points, jnp.full((2, 3), label, jnp.int8))
        assert value == 0 and not gradient.any()


def test_what_going_back_is_for():
    """P84: half of 16 positions show one object, half another, and one of the two labels starts nearer to all of them.
    Forward alone every position goes to that label, and the other is left where it is; both ways each label comes to a
    position of an object of its own."""

    def fit(key, back):
        start, noise = jax.random.normal(key, (2, 8)), 0.1 * jax.random.normal(key, (16, 8))
        objects = jnp.eye(8)[:2]
        points = jnp.repeat(objects, 8, axis=0) + noise
        first = objects.sum(0) + 0.3 * start[0]
        centres = jnp.stack([first, -first + 0.3 * start[1]])
        label = jnp.ones((1, 2), jnp.int8)

        def loss(centres):
            forward, backward = navigated(points[None], centres, label, temperature=0.1)
            return jnp.sum(forward + back * backward)

        def step(centres, _):
            return centres - 0.3 * jax.grad(loss)(centres), None

        centres, _ = jax.lax.scan(step, centres, None, 400)
        cosines = (centres @ points.T) / jnp.linalg.norm(centres, axis=1)[:, None]
        return jnp.min(jnp.max(cosines, axis=1)), jnp.argmax(cosines, axis=1) // 8

    fits = jax.jit(jax.vmap(fit, (0, None)))
    keys = jax.random.split(jax.random.key(0), 8)
    (ours, places), (forward, _) = fits(keys, 1.0), fits(keys, 0.0)
    print(ours, forward, places)
    assert np.min(ours) > 0.7 and (np.sort(places, axis=1) == [0, 1]).all()
    assert_beats(ours, forward)
