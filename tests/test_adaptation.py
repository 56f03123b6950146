"""Test-time adaptation: its objectives against loop-form NumPy in float64, a step of it, and what it is for."""

import cmath
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import assert_equals_loop, complex_step, cosine, in_float64, log1p
from test_methods import affine, identity
from toys import with_head

from labelfx.data import sources
from labelfx.methods.semi_supervised.test_time_adaptation import test_time_adaptation as adaptation
from labelfx.objectives.adaptation import class_aware_info_nce, diversity, neighbour_vote

contrast = jax.jit(jax.value_and_grad(class_aware_info_nce, argnums=(0, 1, 2)))
spread = jax.jit(jax.value_and_grad(diversity, argnums=(0,)))
vote = jax.jit(neighbour_vote, static_argnames="neighbours")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def loop_contrast(query, key, queue, labels, queue_labels, temperature):
    total = 0
    for row, own, label in zip(query, key, labels, strict=True):
        others = [cosine(row, k) for k, of_key in zip(queue, queue_labels, strict=True) if of_key not in (label, -1)]
        positive = cosine(row, own)
        total += log1p(sum(cmath.exp((s - positive) / temperature) for s in others))
    return total / len(query)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_contrast_excludes_keys_of_the_same_pseudo_label(temperature):
    query, key, queue = normal(0, 4, 3), normal(1, 4, 3), normal(2, 6, 3)
    labels, queue_labels = np.array([0, 1, 2, 5]), np.array([0, 1, 1, -1, 2, 0])
    of_query = partial(loop_contrast, key=key, queue=queue, labels=labels, queue_labels=queue_labels)
    value, gradients = in_float64(contrast, query, key, queue, labels, queue_labels, temperature=temperature)
    np.testing.assert_allclose(value, of_query(query, temperature=temperature).real, rtol=1e-12)
    expected = complex_step(partial(of_query, temperature=temperature), query)
    np.testing.assert_allclose(gradients[0], expected, atol=1e-12 * np.abs(expected).max())
    assert not np.any(gradients[1]) and not np.any(gradients[2])


def test_contrast_without_a_negative():
    z = jnp.ones((2, 3), jnp.bfloat16)
    for queue_labels in (jnp.full(4, -1), jnp.zeros(4, int)):  # an empty queue, one of the query's own class
        value, gradients = contrast(z, z, jnp.zeros((4, 3)), jnp.zeros(2, int), queue_labels, temperature=0.005)
        assert value.dtype == jnp.float32 and value.tolist() == 0
        assert not np.any(gradients[0])
    with pytest.raises(ValueError, match="query and key must have one shape"):
        class_aware_info_nce(z, z[:1], z, jnp.zeros(2, int), jnp.zeros(2, int), temperature=0.1)


def loop_diversity(logits):
    mean = sum(np.exp(row) / sum(np.exp(row)) for row in logits) / len(logits)
    return -sum(p * cmath.log(p) for p in mean)


def test_diversity():
    assert_equals_loop(spread, loop_diversity, normal(3, 5, 4))
    value, (gradient,) = spread(jnp.asarray([[1e4, 0.0, 0.0], [1e4, 0.0, 0.0]], jnp.bfloat16))
    assert value.dtype == jnp.float32 and abs(float(value)) < 1e-6 and np.all(np.isfinite(gradient.astype(float)))
    np.testing.assert_allclose(diversity(1e4 * jnp.eye(3)), np.log(3), rtol=1e-6)


def test_neighbours_vote():
    """The mean of the nearest rows' probabilities; rows of zeros are empty and never vote."""
    query, features = normal(4, 5, 3), normal(5, 7, 3)
    probs = np.random.default_rng(6).dirichlet(np.ones(4), 7)
    probs[[1, 4]] = 0
    for neighbours in (1, 3, 6):
        found = in_float64(vote, query, features, probs, neighbours=neighbours)
        for row, votes in zip(query, found, strict=True):
            filled = [i for i in range(7) if i not in (1, 4)]
            nearest = sorted(filled, key=lambda i: -cosine(row, features[i]).real)[:neighbours]  # noqa: B023
            np.testing.assert_allclose(votes, probs[nearest].mean(0), rtol=1e-12)
    assert not np.any(vote(jnp.ones((2, 3)), jnp.ones((4, 3)), jnp.zeros((4, 5)), neighbours=2))


SETTINGS = dict(weak=identity, strong=identity, temperature=0.07, momentum=0.9)


def start(seed, classes, width):
    rng_w, rng_head = jax.random.split(jax.random.key(seed))
    head = {"kernel": jax.random.normal(rng_head, (width, classes)), "bias": jnp.zeros(classes)}
    return {"params": {"backbone": {"w": jax.random.normal(rng_w, (4, width))}, "head": {"Dense_0": head}}}


def test_a_step():
    """The momentum network follows first; its view of the weak images is in the queue when they vote; the contrast is
    against the keys of earlier steps; the gradient is that of the strong view's losses with the pseudo-labels held."""
    rng = np.random.default_rng(0)
    trained = start(0, 3, 5)
    weights = dict(contrastive_weight=0.5, diversity_weight=2.0)
    strong = lambda rng, images: 1 - images  # noqa: E731
    method = adaptation(
        with_head(affine("w", 5), 3),
        optax.sgd(1.0),
        3,
        trained,
        neighbours=3,
        queue_size=8,
        **weights,
        **SETTINGS | {"strong": strong},
    )
    truth = np.array([0, 1, -1, 2], np.int32)
    state = method.init(jax.random.key(0), {"unlabelled": {"input": np.zeros((4, 2, 2, 1), np.float32)}})
    jax.tree.map(np.testing.assert_array_equal, method.variables(state), trained)
    params, momentum = (jax.tree.map(np.float64, trained["params"]) for _ in range(2))
    bank_features, bank_probs, bank_keys, bank_labels = [], [], [], []

    def look(params, image):
        features = image.reshape(len(image), -1) @ params["backbone"]["w"]
        (head,) = params["head"].values()
        return features, features @ head["kernel"] + head["bias"]

    step = jax.jit(method.step)
    for _ in range(3):  # the third step overwrites the first one's rows
        image = rng.random((4, 2, 2, 1), np.float32)
        batch = {"unlabelled": {"input": image}, "audit": {"unlabelled": {"label": truth}}}
        momentum = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, momentum, params)
        features, logits = look(momentum, image)
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        bank_features, bank_probs = [*bank_features, *features][-8:], [*bank_probs, *probs][-8:]
        feature, own = look(params, image)
        labels = []
        for row in feature:
            nearest = sorted(range(len(bank_features)), key=lambda i: -cosine(row, bank_features[i]).real)[:3]  # noqa: B023
            labels.append(int(np.argmax(np.mean([bank_probs[i] for i in nearest], 0))))
        keys = look(momentum, 1 - image)[0]

        def loss(params, image=image, labels=labels, keys=keys, queue=(tuple(bank_keys), tuple(bank_labels))):
            query, logits = look(params, 1 - image)
            chosen = logits[np.arange(4), labels]
            classification = np.mean(np.log(np.exp(logits).sum(1)) - chosen)
            contrastive = loop_contrast(query, keys, queue[0], labels, queue[1], 0.07).real
            return classification + 0.5 * contrastive - 2.0 * loop_diversity(logits).real

        before = params
        state, metrics = step(state, batch, jax.random.key(1))
        np.testing.assert_allclose(metrics["loss"], loss(before), rtol=1e-4)
        known = np.array(labels)[truth >= 0] == truth[truth >= 0]
        np.testing.assert_allclose(metrics["pseudo_label_accuracy"], known.mean(), rtol=1e-6)
        np.testing.assert_allclose(metrics["agreement"], np.mean(own.argmax(1) == labels), rtol=1e-6)
        params = jax.tree.map(np.float64, state.network.params)
        direction = jax.tree.map(lambda p: rng.standard_normal(p.shape), before)
        ahead, behind = (jax.tree.map(lambda p, d, s=s: p + s * d, before, direction) for s in (1e-5, -1e-5))
        descent = jax.tree.map(lambda a, b, d: np.vdot(a - b, d), before, params, direction)
        slope = (loss(ahead) - loss(behind)) / 2e-5
        np.testing.assert_allclose(sum(jax.tree.leaves(descent)), slope, rtol=2e-3, atol=1e-4)
        bank_keys, bank_labels = [*bank_keys, *keys][-8:], [*bank_labels, *labels][-8:]
    for found, expected in zip(state.queue, (bank_features, bank_probs, bank_keys, bank_labels), strict=True):
        np.testing.assert_allclose(np.roll(found, 4, axis=0), expected, rtol=1e-3, atol=1e-5)


def test_errors_say_what_is_allowed():
    trained = start(0, 3, 5)
    batch = {"unlabelled": {"input": np.zeros((4, 2, 2, 1), np.float32)}}
    settings = SETTINGS | dict(neighbours=1, contrastive_weight=1.0, diversity_weight=1.0, queue_size=6)
    with pytest.raises(ValueError, match=r"queue_size = 6: must be a multiple of batch.unlabelled = 4"):
        adaptation(with_head(affine("w", 5), 3), optax.sgd(1.0), 3, trained, **settings).init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match="not those of config.model"):
        wider = adaptation(with_head(affine("w", 6), 3), optax.sgd(1.0), 3, trained, **settings | {"queue_size": 8})
        wider.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match="has trained no classifier"):
        adaptation(with_head(affine("w", 5), 3), optax.sgd(1.0), 3, {"params": {"backbone": {}}}, **settings)


def test_corrupted_digits():
    """A function of the seed; the clean ones where nothing is corrupted; noise of the size that was asked for."""
    clean, same = sources.digits(), sources.digits_corrupted(contrast=1.0, noise=0.0, seed=0)
    np.testing.assert_array_equal(same.test.inputs, clean.test.inputs)
    flat = [sources.digits_corrupted(contrast=0.0, noise=0.1, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(flat[0].train.inputs, flat[1].train.inputs)
    assert np.any(flat[0].test.inputs != flat[2].test.inputs)
    assert flat[0].train.inputs.dtype == np.uint8
    np.testing.assert_array_equal(flat[0].train.labels, clean.train.labels)
    residual = flat[0].train.inputs - clean.train.inputs.mean((1, 2, 3), keepdims=True)
    assert abs(residual.std() / 25.5 - 1) < 0.02


CLASSES, WIDTH, IMAGES = 4, 16, 64


@partial(jax.jit, static_argnames=("neighbours", "steps"))
@partial(jax.vmap, in_axes=(0, None, None))
def accuracy(rng, neighbours, steps):
    """On the images of the shifted domain, after these steps of adaptation to them."""
    rng_head, rng_class, rng_image, rng_init, rng_steps = jax.random.split(rng, 5)
    label = jax.random.randint(rng_class, IMAGES, 0, CLASSES)
    image = 3 * jnp.eye(CLASSES, WIDTH)[label] + 0.5 * jax.random.normal(rng_image, (IMAGES, WIDTH))
    # Where it was trained the other dimensions were 0, and their weights are as they were at the start.
    unused = jax.random.normal(rng_head, (WIDTH, CLASSES)).at[:CLASSES].set(0)
    head = {"kernel": jnp.eye(WIDTH, CLASSES) + unused, "bias": jnp.zeros(CLASSES)}
    trained = {"params": {"backbone": {"w": jnp.eye(WIDTH)}, "head": {"Dense_0": head}}}
    method = adaptation(
        with_head(affine("w", WIDTH), CLASSES),
        optax.sgd(0.05),
        CLASSES,
        trained,
        weak=identity,
        strong=lambda rng, images: images + 0.1 * jax.random.normal(rng, images.shape),
        neighbours=neighbours,
        temperature=0.5,
        contrastive_weight=1.0,
        diversity_weight=1.0,
        momentum=0.9,
        queue_size=128,
    )

    def step(state, rng):
        rows = jax.random.permutation(rng, IMAGES)[:32]
        batch = {"unlabelled": {"input": image[rows]}, "audit": {"unlabelled": {"label": label[rows]}}}
        return method.step(state, batch, rng)[0], None

    state = method.init(rng_init, {"unlabelled": {"input": jnp.zeros((32, WIDTH))}})
    state, _ = jax.lax.scan(step, state, jax.random.split(rng_steps, steps))
    params = state.network.params
    (head,) = params["head"].values()
    logits = image @ params["backbone"]["w"] @ head["kernel"] + head["bias"][None]
    return jnp.mean(jnp.argmax(logits, -1) == label)


def test_neighbours_repair_what_a_shift_has_broken():
    """A classifier of 4 well-separated clusters, right where it was trained. The shift brings noise into dimensions
    that it has never seen, to which its weights are random: a quarter of the images are given a wrong class. The noise
    of an image's neighbours is their own, so that their vote is right, and adaptation repairs the classifier. With one
    neighbour, the image itself, it is trained on its own mistakes and keeps them."""
    seeds = jax.vmap(jax.random.key)(jnp.arange(10))
    source, adapted, alone = (np.asarray(accuracy(seeds, *each)) for each in ((10, 0), (10, 60), (1, 60)))
    for name, gain in (("source", adapted - source), ("one neighbour", adapted - alone)):
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        print(f"over {name}: {adapted.mean():.3f}, gain {gain.mean():.3f} +- {error:.3f}")
        assert gain.mean() > 3 * error
    assert adapted.mean() > 0.95
    assert alone.mean() < 0.85
