"""Negatives chosen from a memory against loop-form NumPy in float64, at their edges, and what the choice is for."""

import cmath

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import assert_close, assert_equals_loop, cosine, in_float64, log1p
from toys import adam, assert_beats, noise, one_label_accuracy, one_layer

from labelfx import objectives
from labelfx.methods.self_supervised.dual_view import dual_view as dual_view_method
from labelfx.objectives import contrastive, memory

dual_view = jax.jit(jax.value_and_grad(objectives.dual_view, argnums=(0, 1)), static_argnames="hardest")
inter_image = jax.jit(jax.value_and_grad(objectives.inter_image), static_argnames="pool")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def loop_dual_view(query, key, queue, temperature, hardest, threshold):
    total = 0
    for anchors, others in ((query, key), (key, query)):
        for anchor, other in zip(anchors, others, strict=True):
            positive = cosine(anchor, other)
            scores = [s for s in (cosine(anchor, row) for row in queue) if s.real < threshold]
            kept = sorted(scores, key=lambda s: -s.real)[:hardest]
            total += log1p(sum(cmath.exp((s - positive) / temperature) for s in kept)) / (2 * len(query))
    return total


@pytest.mark.parametrize("temperature", [0.005, 0.2, 1.0])
@pytest.mark.parametrize("batch,hardest,threshold", [(1, 2, 0.5), (4, 3, 0.3), (4, 7, 2.0), (3, 1, -0.99)])
def test_dual_view_equals_the_loop_form(batch, hardest, threshold, temperature):
    query, key, queue = normal(0, batch, 3), normal(1, batch, 3), normal(2, 7, 3)
    settings = {"temperature": temperature, "hardest": hardest, "threshold": threshold}
    assert_equals_loop(dual_view, loop_dual_view, query, key, constants=(queue,), **settings)


def test_dual_view_of_everything_is_info_nce_both_ways():
    query, key, queue = normal(0, 4, 3), normal(1, 4, 3), normal(2, 6, 3)
    value, _ = in_float64(dual_view, query, key, queue, temperature=0.2, hardest=6, threshold=2.0)
    one_way = jax.jit(contrastive.info_nce_queue)
    both = [in_float64(one_way, *pair, queue, temperature=0.2) for pair in ((query, key), (key, query))]
    assert_close(value, np.mean(both))


def test_filtered_share_counts_from_the_threshold_on():
    query, queue = np.array([[2.0, 0], [0, 1]]), np.array([[1.0, 0], [3, 4], [-1, 0]])
    share = in_float64(jax.jit(memory.filtered_share), query, queue, threshold=0.6)
    assert_close(share, 3 / 6)


def loop_inter_image(query, label, positive, bank, bank_label, ranks, temperature, margin, pool):
    losses = []
    for q, own, row in zip(query, label, positive, strict=True):
        if own < 0 or bank_label[row] != own:
            continue
        others = [cosine(q, z) for z, other in zip(bank, bank_label, strict=True) if other not in (-1, own)]
        nearest = sorted(others, key=lambda s: -s.real)[:pool]
        score = cosine(q, bank[row]) - margin
        losses.append(log1p(sum(cmath.exp((nearest[r] - score) / temperature) for r in ranks if r < len(nearest))))
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("temperature", [0.005, 0.2])
@pytest.mark.parametrize("pool,ranks", [(4, (0, 1, 2, 3)), (9, (8, 2, 5)), (2, (1,))])
@pytest.mark.parametrize("label,margin", [((0, 1, 2, 0), -0.5), ((0, -1, 2, 1), 0.3)])
def test_inter_image_equals_the_loop_form(label, margin, pool, ranks, temperature):
    query, bank = normal(0, 4, 3), normal(1, 9, 3)
    label, positive = np.array(label), np.array([3, 4, 8, 0])
    bank_label = np.array([0, -1, 1, 0, 1, 2, 2, -1, 2])

    def loop(query, **settings):
        return loop_inter_image(query, label, positive, bank, bank_label, ranks, **settings)

    def compiled(query, **settings):
        value, gradient = inter_image(query, label, positive, bank, bank_label, np.array(ranks), **settings)
        return value, (gradient,)

    assert_equals_loop(compiled, loop, query, temperature=temperature, margin=margin, pool=pool)


def test_edges():
    query, key, queue = (jnp.asarray(z, jnp.bfloat16) for z in normal(0, 3, 4, 5))
    value, gradients = dual_view(query, key, queue, temperature=0.005, hardest=2, threshold=0.5)
    assert value.dtype == jnp.float32
    assert all(gradient.dtype == jnp.bfloat16 for gradient in gradients)
    zeros = jnp.zeros((4, 5))
    for rows, threshold in ((zeros, 0.5), (zeros, -0.5), (query.astype(jnp.float32), -0.9999)):
        value, gradients = dual_view(rows, rows, queue, temperature=0.005, hardest=2, threshold=threshold)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert value == 0  # nothing is below the threshold
    by_queue = jax.jit(jax.grad(lambda queue: objectives.dual_view(zeros + 1, zeros + 1, queue, **settings)))
    settings = {"temperature": 0.1, "hardest": 2, "threshold": 0.9}
    assert not np.any(by_queue(queue.astype(jnp.float32)))

    label, ranks, settings = jnp.arange(4), jnp.arange(2), {"temperature": 0.005, "margin": -0.5, "pool": 3}
    value, gradient = inter_image(query, label, label, queue, label, ranks, **settings)
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    value, gradient = inter_image(zeros, label, label, zeros, label, ranks, **settings)
    assert np.isfinite(value) and not np.any(gradient)
    for own, bank_label in ((label * 0, label * 0), (label - 4, label), (label + 4, label)):  # no negative, no positive
        value, gradient = inter_image(query, own, label, queue, bank_label, ranks, **settings)
        assert value == 0 and not np.any(gradient)

    with pytest.raises(ValueError, match="query and key must have one shape"):
        objectives.dual_view(query, key[:2], queue, temperature=0.1, hardest=2, threshold=0.5)
    with pytest.raises(ValueError, match="hardest = 5: must be at most the 4 rows of the queue"):
        objectives.dual_view(query, key, queue, temperature=0.1, hardest=5, threshold=0.5)
    with pytest.raises(ValueError, match="query, label and positive must have shapes"):
        objectives.inter_image(query, label[:2], label, queue, label, ranks, **settings)
    with pytest.raises(ValueError, match="pool = 5: must be at most the 4 rows of the bank"):
        objectives.inter_image(query, label, label, queue, label, ranks, **settings | {"pool": 5})


def class_and_instance(rng, spread):
    """64 images of 4 classes, row i of class i % 4: 4 entries tell the class, 12 the image."""
    own = spread * jax.random.normal(rng, (64, 12))
    return jnp.concatenate([jax.nn.one_hot(jnp.arange(64) % 4, 4), own], 1)


def test_filtering_keeps_classes_together_that_hard_negatives_break_up():
    """A queue of 4 classes: the hardest quarter of it, without a filter, is mostly of the anchor's own class.

    Pushing those away, the encoder tells images apart by what is their own and loses the class. The threshold is
    between the cosines within and across classes; one above 1 filters nothing.
    """

    def run(seed, threshold):
        rng_data, rng_init, rng_steps = jax.random.split(jax.random.key(seed), 3)
        images = class_and_instance(rng_data, 0.3).reshape(64, 4, 4, 1)
        method = dual_view_method(
            one_layer("w", 8),
            adam(0.05),
            augment=noise(0.1),
            projector=one_layer("v", 8),
            temperature=0.1,
            momentum=0.9,
            queue_size=64,
            hardest=16,
            threshold=threshold,
        )

        def step(state, rng):
            rows = jax.random.permutation(jax.random.fold_in(rng, 1), 64)[:32]
            return method.step(state, {"unlabelled": {"input": images[rows]}}, rng)

        state = method.init(rng_init, {"unlabelled": {"input": images[:32]}})
        state, metrics = jax.lax.scan(step, state, jax.random.split(rng_steps, 150))
        params = method.variables(state)["params"]
        z = images.reshape(64, -1) @ params["backbone"]["w"] @ params["projector"]["v"]
        return one_label_accuracy(z, 4), metrics["filtered"][-1]

    over = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    accuracy, filtered = jax.jit(over)(jnp.arange(10), jnp.array([0.4, 2.0]))
    assert_beats(accuracy[:, 0], accuracy[:, 1])
    assert 0.1 < filtered[:, 0].mean() < 0.3 and not np.any(filtered[:, 1])


def test_semi_hard_negatives_and_a_loose_boundary_stand_false_negatives():
    """Each class of 16 is cut into 8 pseudo-labels of two: 14 of the 62 negatives of an image are false.

    They are the nearest ones, so that the 4 hardest negatives (a pool of 4) are nearly all false, of 4 drawn from a
    pool of 32 less than half. A margin of 0.5 in place of -0.5 pulls on until the two images of a pseudo-label agree.
    """

    def run(seed, margin, pool):
        rng_data, rng_init, rng_steps = jax.random.split(jax.random.key(seed), 3)
        x, row, tx = class_and_instance(rng_data, 0.7), jnp.arange(64), adam(0.03)
        pseudo = row % 4 * 8 + row // 4 % 8

        def step(carry, rng):
            w, opt_state = carry
            rng_noise, rng_ranks = jax.random.split(rng)
            ranks = jax.random.permutation(rng_ranks, pool)[:4]

            def loss(w):
                query = (x + 0.1 * jax.random.normal(rng_noise, x.shape)) @ w
                settings = {"temperature": 0.2, "margin": margin, "pool": pool}
                return objectives.inter_image(query, pseudo, (row + 32) % 64, x @ w, pseudo, ranks, **settings)

            updates, opt_state = tx.update(jax.grad(loss)(w), opt_state)
            return (optax.apply_updates(w, updates), opt_state), None

        w = jax.random.normal(rng_init, (16, 8)) / 4
        (w, _), _ = jax.lax.scan(step, (w, tx.init(w)), jax.random.split(rng_steps, 100))
        return one_label_accuracy(x @ w, 4)

    def over(pool):
        both = jax.vmap(jax.vmap(lambda seed, margin: run(seed, margin, pool), (None, 0)), (0, None))
        return jax.jit(both)(jnp.arange(10), jnp.array([-0.5, 0.5]))

    semi_hard, hardest = over(32), over(4)
    assert_beats(semi_hard[:, 0], hardest[:, 0])
    assert_beats(semi_hard[:, 0], semi_hard[:, 1])
