"""PNDA's rotations, positives and predictor against NumPy, and what the choice for each image is for."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loops import assert_close, in_float64
from toys import adam, assert_beats, noise, one_label_accuracy, one_layer

from labelfx.methods.self_supervised import pnda as parts
from labelfx.methods.self_supervised.pnda import pnda
from labelfx.objectives.contrastive import sup_con_mask


def build(steps, threshold, *, predictor_steps, augment, rate=0.01):
    return pnda(
        one_layer("w", 64, jax.nn.relu),
        adam(rate),
        steps,
        augment=augment,
        projector=one_layer("v", 16),
        temperature=0.5,
        predictor_optimizer=lambda steps: adam(rate),
        predictor_steps=predictor_steps,
        margin=0.2,
        separation=0.3,
        threshold=threshold,
    )


def batch_of(images, label):
    return {"unlabelled": {"input": images}, "audit": {"unlabelled": {"label": label}}}


def test_turns():
    images = np.random.default_rng(0).random((4, 3, 3, 2), np.float32)
    turned = jax.jit(parts.turn)(images, jnp.array([0, 1, 2, 3], jnp.int32))
    for k in range(4):
        np.testing.assert_array_equal(turned[k], np.rot90(images[k], k))
    one, other = np.asarray(parts.different_turns(jax.random.key(0), 6000))
    pairs, counts = np.unique(np.stack([one, other]), axis=1, return_counts=True)
    assert {tuple(pair) for pair in pairs.T} == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3) if i != j}
    assert np.all(np.abs(counts - 1000) < 150)


def test_loss_is_that_of_the_anchors_that_are_not_rotated():
    """The authors' form: labels are shared by an image's views, and by its copies where they are positives."""
    z, is_positive = np.random.default_rng(0).normal(size=(6, 2, 3)), np.array([True, False, True])

    def loss(z):
        return 2 * sup_con_mask(z, parts.positives(jnp.asarray(is_positive)), temperature=0.3, base_temperature=0.3)

    rows = [(item, z[item, view] / np.linalg.norm(z[item, view])) for item in range(6) for view in range(2)]
    names = [item // 2 if item % 2 == 0 or is_positive[item // 2] else item + 100 for item, _ in rows]
    total = 0
    for a, (item, anchor) in enumerate(rows):
        if item % 2:
            continue
        others = [b for b in range(len(rows)) if b != a]
        scores = {b: np.exp(anchor @ rows[b][1] / 0.3) for b in others}
        own = [b for b in others if names[b] == names[a]]
        assert len(own) == (3 if is_positive[item // 2] else 1)
        total += np.mean([np.log(sum(scores.values()) / scores[b]) for b in own]) / 6
    assert_close(in_float64(jax.jit(loss), z), total)


def test_predictor_loss_and_choice():
    rng = np.random.default_rng(0)
    images, label = rng.random((8, 3, 3, 1), np.float32), np.zeros(8, np.int32)
    method = build(100, 0.9, predictor_steps=10, augment=lambda rng, images: images)
    state = method.init(jax.random.key(2), batch_of(images, label))
    kernel = np.float32(0.4) * rng.normal(size=(64, 4)).astype(np.float32)
    params = {
        "backbone": state.predictor.params["backbone"],
        "head": {"Dense_0": {"kernel": kernel, "bias": kernel[0]}},
    }
    assert jax.tree.structure(params) == jax.tree.structure(state.predictor.params)
    state, step = state._replace(predictor=state.predictor._replace(params=params)), jax.jit(method.step)
    hidden = lambda x: np.maximum(x.reshape(1, -1) @ np.asarray(params["backbone"]["w"], np.float64), 0)  # noqa: E731
    truth, entropy = np.zeros((8, 4)), np.zeros((8, 4))
    for i, image in enumerate(images):
        for k in range(4):
            logits = (hidden(np.rot90(image, k)) @ kernel + kernel[0])[0]
            p = np.exp(logits) / np.exp(logits).sum()
            truth[i, k], entropy[i, k] = -np.log(p[k]), -np.sum(p * np.log(p))
    middle = math.log(4) / 2
    assert 0 < np.mean(entropy < middle - 0.2) < 1 and 0 < np.mean(entropy.mean(1) > 0.9) < 1
    for done in (0, 10, 55):
        _, metrics = step(state._replace(done=jnp.int32(done)), batch_of(images, label), jax.random.key(1))
        apart = np.maximum(np.abs(entropy - middle), 0.2).mean()
        after = np.mean(truth * (entropy < middle - 0.2)) - 0.3 * (done - 10) / 90 * apart
        np.testing.assert_allclose(metrics["predictor_loss"], truth.mean() if done < 10 else after, rtol=1e-5)
        np.testing.assert_allclose(metrics["rotation_entropy"], entropy.mean(), rtol=1e-5)
        share = 0 if done < 10 else np.mean(entropy.mean(1) > 0.9)
        assert metrics["rotation_positive"] == share


def test_each_image_decides_whether_rotation_matters():
    """Four classes: a figure upright, the same upside down, and two figures that lie any way round.

    Turned by 180 degrees an image of the first class is one of the second, so that copies as positives (threshold 0)
    merge the two. The others keep their class, and copies as negatives (threshold above ln(4)) break it up by
    orientation. Accuracy is from one label a class.
    """

    def run(seed, threshold):
        rng_figures, rng_turns, rng_noise, rng_init, rng_steps = jax.random.split(jax.random.key(seed), 5)
        label = jnp.arange(128, dtype=jnp.int32) % 4
        figure = jax.random.normal(rng_figures, (3, 4, 4, 1))[jnp.maximum(label - 1, 0)]
        turns = jnp.where(label < 2, 2 * label, jax.random.randint(rng_turns, (128,), 0, 4, jnp.int32))
        images = parts.turn(figure, turns) + 0.2 * jax.random.normal(rng_noise, figure.shape)
        method = build(200, threshold, predictor_steps=30, augment=noise(0.2))

        def step(state, rng):
            rows = jax.random.permutation(jax.random.fold_in(rng, 1), 128)[:32]
            return method.step(state, batch_of(images[rows], label[rows]), rng)

        state = method.init(rng_init, batch_of(images[:32], label[:32]))
        state, metrics = jax.lax.scan(step, state, jax.random.split(rng_steps, 200))
        params = method.variables(state)["params"]
        z = jax.nn.relu(images.reshape(128, -1) @ params["backbone"]["w"]) @ params["projector"]["v"]
        return one_label_accuracy(z, 4), metrics["rotation_positive"][-1]

    over = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    accuracy, positive = jax.jit(over)(jnp.arange(10), jnp.array([0.893, 0.0, 2.0]))
    assert np.all(positive[:, 1] == 1) and np.all(positive[:, 2] == 0)
    assert_beats(accuracy[:, 0], accuracy[:, 1])
    assert_beats(accuracy[:, 0], accuracy[:, 2])


def test_images_must_be_square():
    with pytest.raises(ValueError, match="square images"):
        build(1, 0.0, predictor_steps=0, augment=noise(0)).init(jax.random.key(0), batch_of(np.zeros((2, 3, 4, 1)), 0))
