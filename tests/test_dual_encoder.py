"""Contrast between modalities and the method of two encoders: loop-form NumPy in float64, a step, what it is for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import assert_equals_loop, cosine, in_float64, log1p
from test_contrastive_objectives import loop_negative_sum, views
from test_matching_objectives import loop_matching
from test_methods import affine, identity, normalised
from toys import assert_beats

from labelfx.data import pairs
from labelfx.methods.self_supervised.dual_encoder import dual_encoder
from labelfx.objectives.contrastive import cosine as cosines
from labelfx.objectives.contrastive import normalise
from labelfx.objectives.matching import (
    cross_modal,
    cross_modal_diagnostics,
    identity_matching,
    similarity_distribution_matching,
)

compiled = jax.jit(jax.value_and_grad(cross_modal, argnums=(0, 1)), static_argnames="block_size")


def loop_scores(z_a, z_b, temperature):
    """Per anchor (positive, [negatives]), cosine / temperature with the rows of the other side."""
    for rows, others in ((z_a, z_b), (z_b, z_a)):
        for i, row in enumerate(rows):
            scores = [cosine(row, other) / temperature for other in others]
            yield scores.pop(i), scores


def loop_cross_modal(z_a, z_b, temperature, tau_plus, beta):
    losses = []
    for positive, negatives in loop_scores(z_a, z_b, temperature):
        negative_sum, positive, _ = loop_negative_sum(positive, negatives, temperature, tau_plus, beta)
        losses.append(log1p(negative_sum / positive))
    return sum(losses) / len(losses)


SETTINGS = [(0.5, 0.0, 0.0), (0.5, 0.1, 1.0), (0.07, 0.1, 0.5), (0.02, 0.0, 6.0), (1.0, 0.5, 2.0)]


@pytest.mark.parametrize("temperature, tau_plus, beta", SETTINGS)
def test_cross_modal_equals_the_loop_form(temperature, tau_plus, beta):
    settings = dict(temperature=temperature, tau_plus=tau_plus, beta=beta)
    assert_equals_loop(compiled, loop_cross_modal, *views(0, 5, 3), **settings)


def test_clip_is_a_special_case_and_blocks_change_nothing():
    z_a, z_b = views(1, 6, 4)
    scores = normalised(z_a) @ normalised(z_b).T / 0.2
    log_z = [np.log(np.exp(scores).sum(axis)) for axis in (1, 0)]
    clip = np.mean([log_z[0] - np.diag(scores), log_z[1] - np.diag(scores)])
    settings = dict(temperature=0.2, tau_plus=0.0, beta=0.0)
    whole = in_float64(compiled, z_a, z_b, **settings)
    np.testing.assert_allclose(whole[0], clip, rtol=1e-12)
    blocks = in_float64(compiled, z_a, z_b, **settings, block_size=4)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12), blocks, whole)


def test_identity_matching_has_every_row_match_its_pair_only():
    z_a, z_b = views(2, 4, 3)
    found = jax.jit(jax.value_and_grad(identity_matching, argnums=(0, 1)))
    loop = partial(loop_matching, labels=np.arange(4))
    assert_equals_loop(found, loop, z_a, z_b, temperature=0.2, epsilon=1e-8, rtol=1e-11)


def test_diagnostics_equal_the_loop_form():
    z_a, z_b = views(3, 6, 3, noise=0.4)
    settings = dict(temperature=0.5, tau_plus=0.3, beta=1.0)
    found = in_float64(jax.jit(cross_modal_diagnostics), z_a, z_b, **settings)
    scores = list(loop_scores(z_a, z_b, 0.5))
    right = [positive.real > max(s.real for s in negatives) for positive, negatives in scores]
    expected = {
        "retrieval_accuracy_left": np.mean(right[:6]),
        "retrieval_accuracy_right": np.mean(right[6:]),
        "positive_score": 0.5 * np.mean([positive.real for positive, _ in scores]),
        "negative_score": 0.5 * np.mean([[s.real for s in negatives] for _, negatives in scores]),
        "embedding_std": np.mean([normalised(z).std(0).mean() for z in (z_a, z_b)]),
        "clamped": np.mean([loop_negative_sum(*each, **settings)[2] for each in scores]),
    }
    assert found.keys() == expected.keys()
    assert 0 < expected["clamped"] < 1 and expected["retrieval_accuracy_left"] < 1
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("shape, dtype", [((1, 3), jnp.float32), ((4, 3), jnp.bfloat16)])
def test_edges_are_finite_and_float32(shape, dtype):
    """One pair, rows of zeros, bfloat16, a low temperature."""
    settings = dict(temperature=0.005, tau_plus=0.1, beta=1.0)
    z_a, z_b = jnp.ones(shape, dtype), jnp.zeros(shape, dtype)
    value, gradients = compiled(z_a, z_b, **settings)
    metrics = jax.jit(cross_modal_diagnostics)(z_a, z_b, **settings)
    assert value.dtype == jnp.float32 and gradients[0].dtype == dtype
    assert np.isfinite(value) and all(np.all(np.isfinite(g.astype(jnp.float32))) for g in gradients)
    assert all(v.dtype == jnp.float32 and np.isfinite(v) for v in metrics.values())
    alone = len(z_a) == 1
    assert bool(value == 0) == alone
    assert float(metrics["retrieval_accuracy_left"]) == alone  # a tie finds nothing


def test_pairs():
    images = np.arange(1, 31, dtype=np.uint8).reshape(2, 3, 5, 1)
    left, right = pairs.halves(images)
    assert left.dtype == right.dtype == np.uint8
    np.testing.assert_array_equal(left + right, images)
    assert not np.any(left[:, :, 2:]) and not np.any(right[:, :, :2])
    tokens = np.arange(12).reshape(2, 2, 3)
    np.testing.assert_array_equal(pairs.stacked(tokens), [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]])
    with pytest.raises(ValueError, match=r"shape \[B, 2, \.\.\.\], got \(2, 3, 5, 1\)"):
        pairs.stacked(images)
    z = jnp.ones((4, 3))
    with pytest.raises(ValueError, match="z_a and z_b must have one shape"):
        cross_modal(z, z[:2], temperature=0.5, tau_plus=0.0, beta=0.0)


@pytest.mark.parametrize("shared", [False, True])
def test_a_step(shared):
    """The loss is that of the left rows through one network and the right ones through the other, or the same one; each
    parameter falls by its own gradient; evals read the left network."""
    rng, width = np.random.default_rng(0), 5
    objective = partial(cross_modal, temperature=0.5, tau_plus=0.1, beta=1.0)
    method = dual_encoder(
        affine("w", width),
        optax.sgd(1.0),
        pair=pairs.stacked,
        augment=identity,
        shared=shared,
        projector=affine("v", 3),
        objective=objective,
    )
    rows = rng.random((6, 2, 4), np.float32)
    truth = {"unlabelled": {"label": np.zeros(6, np.int32)}}
    batch = {"unlabelled": {"input": rows}, "audit": truth}
    state = method.init(jax.random.key(0), batch)
    assert len(state) == (1 if shared else 2)
    params = [jax.tree.map(np.float64, network.params) for network in state]

    def loss(params):
        left, right = params[0], params[-1]
        z_a = rows[:, 0].astype(np.float64) @ left["backbone"]["w"] @ left["projector"]["v"]
        z_b = rows[:, 1].astype(np.float64) @ right["backbone"]["w"] @ right["projector"]["v"]
        return loop_cross_modal(z_a, z_b, 0.5, 0.1, 1.0).real

    after, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
    np.testing.assert_allclose(metrics["loss"], loss(params), rtol=1e-5)
    assert metrics["false_negatives"] == 1
    for index, network in enumerate(after):
        descent = jax.tree.map(lambda a, b: a - np.float64(b), params[index], network.params)
        for part, name in (("backbone", "w"), ("projector", "v")):
            direction = rng.standard_normal(params[index][part][name].shape)
            ahead, behind = (jax.tree.map(np.copy, params) for _ in range(2))
            ahead[index][part][name] += 1e-5 * direction
            behind[index][part][name] -= 1e-5 * direction
            slope = (loss(ahead) - loss(behind)) / 2e-5
            np.testing.assert_allclose(np.vdot(descent[part][name], direction), slope, rtol=1e-3, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, method.variables(after), after[0].variables)


GROUPS, MEMBERS, WIDTH, STEPS = 8, 8, 4, 200


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def margin(rng, beta):
    """How far a pair scores above the most similar other row, on average, after training with hard negatives (beta)."""
    rng_data, rng_left, rng_right, rng_noise = jax.random.split(rng, 4)
    group, member = jnp.repeat(jnp.eye(GROUPS), MEMBERS, 0), 0.3 * jnp.tile(jnp.eye(MEMBERS), (GROUPS, 1))
    sides = jnp.concatenate([group, member], 1) @ (jax.random.normal(rng_data, (2, GROUPS + MEMBERS, 16)) / 4)
    params = [jax.random.normal(rng, (16, WIDTH)) / 4 for rng in (rng_left, rng_right)]
    tx = optax.adam(0.01)

    def loss(params, rng):
        left, right = sides + 0.02 * jax.random.normal(rng, sides.shape)
        return cross_modal(left @ params[0], right @ params[1], temperature=1.0, tau_plus=0.0, beta=beta)

    def step(carry, rng):
        params, opt_state = carry
        updates, opt_state = tx.update(jax.grad(loss)(params, rng), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(rng_noise, STEPS))
    left, right = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (sides[0] @ params[0], sides[1] @ params[1]))
    scores = left @ right.T
    others = jnp.where(jnp.eye(len(scores), dtype=bool), -1, scores)
    return jnp.mean(jnp.diag(scores) - jnp.max(others, axis=1))


def test_hard_negatives_tell_near_duplicates_apart():
    """64 pairs, 8 groups of 8: members of a group differ by a third of what groups differ by, and 4 dimensions have to
    hold them all. Without the weights (beta = 0) most of the loss is about pairs of other groups, which are told apart
    already; with them, at equal steps, a pair stands out from the most similar other row by about twice as much."""
    seeds = jax.vmap(jax.random.key)(jnp.arange(10))
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam takes a power of its count
        weighted, plain = margin(seeds, 1.0), margin(seeds, 0.0)
    assert_beats(weighted, plain)
    assert weighted.mean() > 1.5 * plain.mean()


PEOPLE, PICTURES = 16, 4


@partial(jax.jit, static_argnames="known")
@partial(jax.vmap, in_axes=(0, None))
def found_by_text(rng, known):
    """How often the text of a picture is most similar to another picture of the same person, of people not seen."""
    rng_mix, rng_params, rng_train, rng_test = jax.random.split(rng, 4)
    people = jnp.repeat(jnp.arange(PEOPLE), PICTURES)
    mix = jax.random.normal(rng_mix, (2, 8, 16)) / np.sqrt(8).astype(np.float32)

    def draw(rng):
        rng_person, rng_picture, rng_noise = jax.random.split(rng, 3)
        person = jnp.repeat(jax.random.normal(rng_person, (PEOPLE, 4)), PICTURES, axis=0)
        pair = jnp.concatenate([person, jax.random.normal(rng_picture, (len(people), 4))], axis=1) @ mix
        return pair + 0.1 * jax.random.normal(rng_noise, pair.shape)

    train, test = draw(rng_train), draw(rng_test)
    labels = people if known else jnp.arange(len(people))

    def step(params, _):
        def loss(params):
            image, text = train[0] @ params[0], train[1] @ params[1]
            return similarity_distribution_matching(image, text, labels, temperature=0.1, epsilon=1e-8)

        return params - 0.1 * jax.grad(loss)(params), None

    params, _ = jax.lax.scan(step, jax.random.normal(rng_params, (2, 16, 4)) / 4, length=200)
    scores = cosines(normalise(test[1] @ params[1]), normalise(test[0] @ params[0]))
    others = jnp.where(jnp.eye(len(scores), dtype=bool), -2.0, scores)
    return jnp.mean(people[jnp.argmax(others, axis=1)] == people)


def test_distribution_matching_finds_other_pictures_of_a_person():
    """Half of what picture and text share is the person's, half the picture's own, and 4 dimensions have to choose. The
    ablation takes every pair for another person, so that what tells the pictures of a person apart is kept too."""
    seeds = jax.vmap(jax.random.key)(jnp.arange(10))
    known, alone = found_by_text(seeds, True), found_by_text(seeds, False)
    assert_beats(known, alone)
    assert known.mean() > 0.7 and alone.mean() < 0.3
