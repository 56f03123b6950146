"""MoCo v3, SupCon and feature transformation against loop-form NumPy in float64, and at their edges."""

import cmath
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import assert_close, assert_equals_loop, cosine, in_float64, log1p

from labelfx import objectives
from labelfx.methods.self_supervised.feature_transform import draw
from labelfx.objectives import contrastive

TEMPERATURES = (0.005, 0.07, 0.2, 1.0)

moco_v3_by_queries = jax.jit(jax.value_and_grad(objectives.moco_v3, argnums=(0, 1)))
moco_v3_by_keys = jax.jit(jax.grad(objectives.moco_v3, argnums=(2, 3)))
sup_con = jax.jit(jax.value_and_grad(objectives.sup_con, argnums=(0,)))
sup_con_mask = jax.jit(jax.value_and_grad(objectives.sup_con_mask, argnums=(0,)))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def loop_moco_v3(query_a, query_b, key_a, key_b, temperature):
    total = 0
    for queries, keys in ((query_a, key_b), (query_b, key_a)):
        for i, query in enumerate(queries):
            positive = cosine(query, keys[i])
            others = [cosine(query, key) for j, key in enumerate(keys) if j != i]
            total += log1p(sum(cmath.exp((s - positive) / temperature) for s in others)) / len(queries)
    return 2 * temperature * total


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch,dim", [(1, 3), (2, 2), (5, 4)])
def test_moco_v3_equals_the_loop_form(batch, dim, temperature):
    query_a, query_b, key_a, key_b = normal(batch, 4, batch, dim)
    assert_equals_loop(
        moco_v3_by_queries, loop_moco_v3, query_a, query_b, constants=(key_a, key_b), temperature=temperature
    )
    assert not np.any(in_float64(moco_v3_by_keys, query_a, query_b, key_a, key_b, temperature=temperature))


def test_moco_v3_of_orthogonal_rows():
    """Each query equals its key of the other view and is orthogonal to the rest."""
    eye = jnp.eye(4)
    value, _ = moco_v3_by_queries(3 * eye, eye, eye, eye, temperature=0.5)
    assert_close(value, 2 * np.log(1 + 3 * np.exp(-2)), 1e-6)


def loop_sup_con_mask(z, mask, temperature, base_temperature):
    rows = [(i, row) for i, views in enumerate(z) for row in views]
    total = 0
    for a, (i, anchor) in enumerate(rows):
        others = [(mask[i][j], cosine(anchor, row) / temperature) for b, (j, row) in enumerate(rows) if b != a]
        if sum(weight for weight, _ in others) == 0:
            continue
        largest = max(s.real for _, s in others)
        log_sum = largest + cmath.log(sum(cmath.exp(s - largest) for _, s in others))
        total += sum(weight * (log_sum - s) for weight, s in others) / sum(weight for weight, _ in others)
    return temperature / base_temperature * total / len(rows)


def loop_sup_con(z, labels, temperature, base_temperature):
    mask = [[float(a == b) for b in labels] for a in labels]
    return loop_sup_con_mask(z, mask, temperature, base_temperature)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("views,labels", [(1, [0, 1, 0, 0]), (2, [3, 1, 3]), (3, [0, 0]), (1, [0, 1]), (1, [7])])
def test_sup_con_equals_the_loop_form(views, labels, temperature):
    z, labels = normal(views, len(labels), views, 3), np.array(labels)
    settings = dict(temperature=temperature, base_temperature=0.07)
    assert_equals_loop(sup_con, loop_sup_con, z, constants=(labels,), **settings)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize(
    "mask",
    [
        [[1, 1, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]],  # asymmetric, one anchor with nothing
        [[0.0, 0.5, 2.0, 0.0], [1.0, 0.0, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5]],
    ],
)
def test_sup_con_mask_equals_the_loop_form(mask, views):
    z, mask = normal(5, 4, views, 3), np.array(mask)
    assert_equals_loop(sup_con_mask, loop_sup_con_mask, z, constants=(mask,), temperature=0.1, base_temperature=0.05)
    transposed, _ = in_float64(sup_con_mask, z, mask.T, temperature=0.1, base_temperature=0.05)
    assert abs(transposed - in_float64(sup_con_mask, z, mask, temperature=0.1, base_temperature=0.05)[0]) > 1e-3


def test_sup_con_of_images_of_their_own_class_is_nt_xent():
    z = normal(0, 6, 2, 4)
    value, _ = in_float64(sup_con, z, np.arange(6), temperature=0.2, base_temperature=0.2)
    assert_close(value, in_float64(contrastive.nt_xent, z[:, 0], z[:, 1], temperature=0.2))


def test_anchors_without_positives_stay_in_the_mean():
    z = normal(0, 4, 1, 3)
    settings = dict(temperature=0.1, base_temperature=0.07)
    value, (gradient,) = in_float64(sup_con, z, np.arange(4), **settings)
    assert value == 0
    assert not np.any(gradient)
    # A lone class adds a row to the denominators of the others and to the mean, nothing else.
    pair, _ = in_float64(sup_con, z, np.array([0, 0, 1, 2]), **settings)
    scores = np.array([[cosine(a, b).real / 0.1 for b in z[:, 0]] for a in z[:, 0]])
    terms = [np.log(np.sum(np.exp(np.delete(scores[i], i)))) - scores[0, 1] for i in (0, 1)]
    assert_close(pair, 0.1 / 0.07 * sum(terms) / 4)


def test_feature_transform_equals_its_formula():
    query, key, queue = normal(0, 3, 4), normal(1, 3, 4), normal(2, 5, 4)
    permutation = np.array([3, 0, 4, 1, 2])
    for positive, negative in ((1.7, 0.3), (1 + np.abs(query), np.abs(np.tanh(queue)))):
        transformed = in_float64(
            objectives.feature_transform,
            query,
            key,
            queue,
            positive_lambda=positive,
            negative_lambda=negative,
            permutation=permutation,
        )
        positive, negative = np.broadcast_to(positive, query.shape), np.broadcast_to(negative, queue.shape)
        expected = [np.zeros_like(z) for z in (query, key, queue)]
        for i, d in np.ndindex(*query.shape):
            expected[0][i, d] = positive[i, d] * query[i, d] + (1 - positive[i, d]) * key[i, d]
            expected[1][i, d] = positive[i, d] * key[i, d] + (1 - positive[i, d]) * query[i, d]
        for i, d in np.ndindex(*queue.shape):
            expected[2][i, d] = negative[i, d] * queue[i, d] + (1 - negative[i, d]) * queue[permutation[i], d]
        for actual, z in zip(transformed, expected, strict=True):
            assert_close(actual, z, 1e-15)


def test_feature_transform_makes_harder_positives():
    """For unit rows the score s becomes s - 2 l (l - 1) (1 - s), and the loss against the queue rises."""
    query, key, queue = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in np.split(normal(0, 12, 4), [3, 6]))
    settings = dict(positive_lambda=1.4, negative_lambda=1.0, permutation=np.arange(6))
    harder = in_float64(objectives.feature_transform, query, key, queue, **settings)
    score = np.sum(query * key, axis=1)
    assert_close(np.sum(harder[0] * harder[1], axis=1), score - 2 * 1.4 * 0.4 * (1 - score))
    loss = jax.jit(contrastive.queue_cross_entropy)
    before, after = (in_float64(loss, *z, temperature=0.2) for z in ((query, key, queue), harder))
    assert after > before


def test_transformed_queue_loss_equals_the_loop_form():
    """Scores are products of rows that are not normalised again, and k' depends on the query."""
    unit = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in np.split(normal(5, 13, 4), [3, 6])]
    settings = dict(positive_lambda=1.6, negative_lambda=0.3, permutation=np.arange(7)[::-1].copy())

    def transformed(query, key, queue, temperature):
        return contrastive.queue_cross_entropy(
            *objectives.feature_transform(query, key, queue, **settings), temperature=temperature
        )

    def loop(query, key, queue, temperature):
        negatives = [0.3 * row + 0.7 * other for row, other in zip(queue, queue[::-1], strict=True)]
        total = 0
        for q, k in zip(query, key, strict=True):
            anchor, positive = 1.6 * q - 0.6 * k, 1.6 * k - 0.6 * q
            score = sum(anchor * positive)
            total += log1p(sum(cmath.exp((sum(anchor * row) - score) / temperature) for row in negatives))
        return total / len(query)

    compiled = jax.jit(jax.value_and_grad(transformed, argnums=(0,)))
    for temperature in (0.07, 1.0):
        assert_equals_loop(compiled, loop, unit[0], constants=unit[1:], temperature=temperature)


def test_interpolated_negatives_fill_the_space_between_those_of_the_queue():
    """On a circle, with a queue of 8 that stays as it is: how far a random direction is from the nearest negative of 20
    steps. Without the transform those are always the same 8."""
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (10, 8))
    queues = np.stack([np.cos(angles), np.sin(angles)], -1)
    keys = jax.random.split(jax.random.key(0), (10, 20))
    at_step = partial(draw, queue=jnp.zeros((8, 2)), positive_alpha=2.0, negative_alpha=1.6)
    mix = jax.tree.map(np.asarray, jax.jit(jax.vmap(jax.vmap(at_step)))(keys))
    around = np.linspace(0, 2 * np.pi, 360)
    directions = np.stack([np.cos(around), np.sin(around)])
    gaps = []
    for queue, near, order in zip(queues, mix["negative_lambda"], mix["permutation"], strict=True):
        mixed = (near[:, None, None] * queue + (1 - near[:, None, None]) * queue[order]).reshape(-1, 2)
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        gaps.append([np.mean(1 - np.max(rows @ directions, axis=0)) for rows in (queue, mixed)])
    margin = np.subtract(*np.transpose(gaps))
    print(f"mean gaps {np.mean(gaps, 0)}, margin {margin.mean():.3f} +- {margin.std(ddof=1) / np.sqrt(10):.3f}")
    assert margin.mean() > 3 * margin.std(ddof=1) / np.sqrt(10)


def test_feature_transform_sends_a_gradient_to_the_query_alone():
    query, key, queue = normal(0, 3, 4), normal(1, 3, 4), normal(2, 5, 4)
    by_query, by_key = normal(3, 3, 4), normal(4, 3, 4)

    def total(query, key, queue):
        settings = dict(positive_lambda=1.7, negative_lambda=0.3, permutation=jnp.arange(5)[::-1])
        transformed = objectives.feature_transform(query, key, queue, **settings)
        return jnp.sum(transformed[0] * by_query) + jnp.sum(transformed[1] * by_key) + jnp.sum(transformed[2])

    gradients = in_float64(jax.grad(total, argnums=(0, 1, 2)), query, key, queue)
    assert_close(gradients[0], 1.7 * by_query - 0.7 * by_key)
    assert not np.any(gradients[1])
    assert not np.any(gradients[2])


LABELS = np.array([0, 1, 0, 2])
OBJECTIVES = {
    "moco_v3": lambda z: moco_v3_by_queries(z[:, 0], z[:, 1], z[::-1, 0], z[::-1, 1], temperature=0.005),
    "sup_con": lambda z: sup_con(z, LABELS, temperature=0.005, base_temperature=0.07),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_float32_at_low_temperature_and_bfloat16(objective):
    z = normal(8, 4, 2, 5)
    value, gradients = objective(jnp.asarray(z, jnp.float32))
    expected, expected_gradients = in_float64(objective, z)
    assert value.dtype == jnp.float32
    assert_close(value, expected, 1e-5)
    jax.tree.map(partial(assert_close, rtol=1e-4), gradients, expected_gradients)
    low = jnp.asarray(z, jnp.bfloat16)
    value, gradients = objective(low)
    assert value.dtype == jnp.float32
    assert value == objective(low.astype(jnp.float32))[0]
    assert all(gradient.dtype == jnp.bfloat16 for gradient in gradients)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_rows_of_zeros_and_opposed_rows(objective):
    z = jnp.asarray(normal(8, 4, 2, 5), jnp.float32)
    value, gradients = objective(z.at[2].set(0))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert any(np.any(gradient) for gradient in gradients)
    opposed = jnp.asarray(np.sign(z[:, :1, :1] * jnp.ones((4, 2, 5))))
    value, gradients = objective(opposed * jnp.asarray([[[1.0], [-1.0]]]))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert np.isnan(objective(z.at[2, 0, 0].set(jnp.nan))[0])


def test_errors_say_what_is_allowed():
    four, two = jnp.ones((4, 3)), jnp.ones((2, 3))
    with pytest.raises(ValueError, match=r"query_a and key_b must have one shape \[B, D\], got \(4, 3\) and \(2, 3\)"):
        objectives.moco_v3(four, four, four, two, temperature=0.1)
    with pytest.raises(ValueError, match="query_b and key_a must have one shape"):
        objectives.moco_v3(four, two, four, four, temperature=0.1)
    settings = dict(temperature=0.1, base_temperature=0.1)
    with pytest.raises(ValueError, match=r"z must have shape \[B, V, D\], got \(4, 3\)"):
        objectives.sup_con(four, jnp.zeros(4, int), **settings)
    with pytest.raises(ValueError, match=r"labels must have shape \[B\] for z of \[B, V, D\], got \(3,\)"):
        objectives.sup_con(four[:, None], jnp.zeros(3, int), **settings)
    with pytest.raises(ValueError, match=r"got \(4, 1, 3\) and \(4, 3\)"):
        objectives.sup_con_mask(four[:, None], jnp.ones((4, 3)), **settings)
    with pytest.raises(ValueError, match="query and key must have one shape"):
        objectives.feature_transform(
            four, two, four, positive_lambda=1.5, negative_lambda=0.5, permutation=jnp.arange(4)
        )
