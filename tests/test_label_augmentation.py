"""SLA's joint labels, aggregation and self-distillation against NumPy, and what the joint labels are for."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import assert_equals_loop
from sklearn.datasets import load_digits
from toys import adam, assert_beats, noise, one_layer, with_head

from labelfx.data.transformations import colour_permutations, rotations
from labelfx.evals.transformed import aggregated
from labelfx.methods.from_labels.label_augmentation import label_augmentation
from labelfx.methods.from_labels.supervised import supervised
from labelfx.methods.self_supervised.pnda import turn
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.label_augmentation import aggregated_logits, joint_cross_entropy


def log_softmax(scores):
    return scores - np.log(np.sum(np.exp(scores)))


def joint_loop(joint, label):
    """Over rows, copies and every pair of class and transformation."""
    losses = []
    for row, y in enumerate(label):
        for t in range(joint.shape[1]):
            scores = {(c, s): joint[row, t, c, s] for c in range(joint.shape[2]) for s in range(joint.shape[3])}
            if y >= 0:
                losses.append(np.log(sum(np.exp(score) for score in scores.values())) - scores[y, t])
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("label", [[0, 2, 1], [-1, 2, -1], [-1, -1, -1]])
def test_joint_cross_entropy(label):
    joint, label = np.random.default_rng(0).normal(size=(3, 4, 3, 4)), np.array(label, np.int32)
    compiled = jax.jit(jax.value_and_grad(joint_cross_entropy, argnums=(0,)))
    assert_equals_loop(compiled, joint_loop, joint, constants=(label,))


def test_aggregated_logits_read_of_each_copy_its_own_transformation():
    joint = np.random.default_rng(0).normal(size=(2, 4, 3, 4))
    weights = np.random.default_rng(1).normal(size=(2, 3))

    def loop(joint):
        total = 0
        for row, c in itertools.product(range(2), range(3)):
            total += weights[row, c] * sum(joint[row, t, c, t] for t in range(4)) / 4
        return total

    compiled = jax.jit(jax.value_and_grad(lambda joint: jnp.sum(weights * aggregated_logits(joint)), argnums=(0,)))
    assert_equals_loop(compiled, loop, joint)
    for wrong in (np.zeros((2, 4, 3, 3)), np.zeros((2, 4, 3))):
        with pytest.raises(ValueError, match=r"joint must be \[B, M, C, M\], got"):
            aggregated_logits(wrong)
        with pytest.raises(ValueError, match=r"joint must be \[B, M, C, M\], got"):
            joint_cross_entropy(wrong, np.zeros(2, np.int32))


def test_transformations():
    images = np.random.default_rng(0).random((3, 5, 5, 3), np.float32)
    turned, orders = np.asarray(rotations(images)), np.asarray(colour_permutations(images))
    assert turned.shape == (3, 4, 5, 5, 3) and orders.shape == (3, 6, 5, 5, 3)
    for i, t in itertools.product(range(3), range(4)):
        np.testing.assert_array_equal(turned[i, t], np.rot90(images[i], t))
    for made in (turned, orders):
        np.testing.assert_array_equal(made[:, 0], images)
        assert len({copy.tobytes() for copy in made[0]}) == made.shape[1]
    np.testing.assert_array_equal(np.sort(orders, -1), np.sort(np.broadcast_to(images[:, None], orders.shape), -1))
    with pytest.raises(ValueError, match=r"of square images \[B, H, H, C\], got \[3, 5, 4, 3\]"):
        rotations(images[:, :, :4])
    with pytest.raises(ValueError, match=r"of RGB images \[B, H, W, 3\], got \[3, 5, 5, 1\]"):
        colour_permutations(images[..., :1])


def build(distil, classes=2, tx=None):
    model, still = one_layer("w", 32, jax.nn.relu), noise(0.0)
    tx = tx or adam(0.01)
    return label_augmentation(model, tx, classes, augment=still, transformation=rotations, distil=distil)


@pytest.mark.parametrize("distil", [False, True])
def test_step_is_the_sum_of_its_losses(distil):
    rng = np.random.default_rng(0)
    images, label = rng.random((5, 3, 3, 1), np.float32), np.array([0, 2, 1, 2, 0], np.int32)
    method, batch = build(distil, classes=3), {"labelled": {"input": images, "label": label}}
    state = method.init(jax.random.key(0), batch)
    _, metrics = jax.jit(method.step)(state, batch, jax.random.key(1))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), method.variables(state)["params"])

    def logits(image, head):
        hidden = np.maximum(image.reshape(-1) @ params["backbone"]["w"], 0)
        return hidden @ params[head]["Dense_0"]["kernel"] + params[head]["Dense_0"]["bias"]

    joint_loss = single_loss = divergence = right = together = 0
    for image, y in zip(images, label, strict=True):
        copies = [logits(np.rot90(image, t), "joint") for t in range(4)]
        joint_loss -= sum(log_softmax(copy)[4 * y + t] for t, copy in enumerate(copies)) / 20
        aggregated = np.mean([copy[t::4] for t, copy in enumerate(copies)], 0)
        single = logits(image, "head")
        teacher, student = log_softmax(aggregated), log_softmax(single)
        single_loss -= student[y] / 5
        divergence += np.sum(np.exp(teacher) * (teacher - student)) / 5
        together, right = together + (np.argmax(aggregated) == y) / 5, right + (np.argmax(single) == y) / 5
        if not distil:
            np.testing.assert_allclose(single, copies[0][::4], rtol=1e-5)
    np.testing.assert_allclose(metrics["joint_loss"], joint_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], joint_loss + distil * (single_loss + divergence), rtol=1e-5)
    np.testing.assert_allclose(metrics["aggregated_accuracy"], together, rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], right, rtol=1e-6)


def test_distillation_moves_the_second_head_and_the_features_alone():
    """The joint head moves as without it: the gradient of the aggregated probabilities stops."""
    rng = np.random.default_rng(0)
    batch = {"labelled": {"input": rng.random((6, 3, 3, 1), np.float32), "label": np.arange(6, dtype=np.int32) % 2}}
    tx, after = optax.sgd(0.5), {}
    for distil in (False, True):
        method = build(distil, tx=tx)
        start = method.init(jax.random.key(0), batch)
        after[distil] = jax.jit(method.step)(start, batch, jax.random.key(1))[0].params
    jax.tree.map(np.testing.assert_array_equal, after[False]["joint"], after[True]["joint"])
    assert np.abs(after[False]["joint"]["Dense_0"]["kernel"] - start.params["joint"]["Dense_0"]["kernel"]).max() > 1e-3
    assert np.abs(after[False]["backbone"]["w"] - after[True]["backbone"]["w"]).max() > 1e-4


def test_aggregated_eval():
    rng = np.random.default_rng(0)
    images, label = rng.random((7, 3, 3, 1), np.float32), rng.integers(0, 2, 7).astype(np.int32)
    method = build(True)
    variables = method.variables(method.init(jax.random.key(0), {"labelled": {"input": images}}))
    head_logits = np.eye(2, dtype=np.float32)[np.r_[label[:5], 1 - label[5:]]]
    backbone = one_layer("w", 32, jax.nn.relu)
    found = aggregated(backbone, variables, rotations, images, label, head_logits, 2)
    params = jax.tree.map(np.asarray, variables["params"])
    joint = params["joint"]["Dense_0"]
    hidden = np.maximum(np.asarray(rotations(images)).reshape(28, -1) @ params["backbone"]["w"], 0)
    logits = (hidden @ joint["kernel"] + joint["bias"]).reshape(7, 4, 2, 4)
    together = sum(logits[:, t, :, t] for t in range(4))
    assert found["accuracy"] == pytest.approx(np.mean(together.argmax(1) == label))
    assert found["single"] == pytest.approx(np.mean(logits[:, 0, :, 0].argmax(1) == label))
    assert found["head"] == pytest.approx(5 / 7) and found["split"] == "test" and found["n"] == 7


@functools.cache
def sixes():
    """Real sixes, of which every second lies upside down: images [N, 8, 8, 1] in [0, 1], and which do."""
    digits = load_digits()
    images = jnp.asarray(digits.images[digits.target == 6][:160, ..., None] / 16, jnp.float32)
    label = jnp.arange(160, dtype=jnp.int32) % 2
    return turn(images, 2 * label), label


def trained(method, images, label, seed, steps=80):
    """The variables after some steps on random rows."""

    def step(state, rng):
        rows = jax.random.randint(jax.random.fold_in(rng, 1), (32,), 0, len(images))
        batch = {"labelled": {"input": images[rows], "label": label[rows]}}
        return method.step(state, batch, rng)[0], None

    rng_init, rng_steps = jax.random.split(jax.random.key(seed))
    state = method.init(rng_init, {"labelled": {"input": images}})
    state, _ = jax.lax.scan(step, state, jax.random.split(rng_steps, steps))
    return method.variables(state)["params"]


def test_classes_that_differ_only_by_rotation():
    """Sixes and sixes upside down, as nines are: one label for all rotations asks for the impossible, a label of class
    and rotation does not; and one pass of the second head knows what the four copies do together."""
    images, label = sixes()
    train, test = slice(0, 80), slice(80, None)

    def hidden(params, x):
        return jax.nn.relu(x.reshape(len(x), -1) @ params["backbone"]["w"])

    def logits(params, x, head):
        (layer,) = params[head].values()
        return hidden(params, x) @ layer["kernel"] + layer["bias"][None]

    def right(scores):
        return jnp.mean(jnp.argmax(scores, -1) == label[test])

    def ours(seed):
        params = trained(build(True), images[train], label[train], seed)
        joint = logits(params, jax.lax.collapse(rotations(images[test]), 0, 2), "joint").reshape(-1, 4, 2, 4)
        return right(aggregated_logits(joint)), right(logits(params, images[test], "head"))

    def ablation(seed):
        def turned(rng, x):
            return turn(x, jax.random.randint(rng, (len(x),), 0, 4, jnp.int32))

        classifier = with_head(one_layer("w", 32, jax.nn.relu), 2)
        objective = functools.partial(cross_entropy, label_smoothing=0.0)
        method = supervised(classifier, adam(0.01), augment=turned, objective=objective)
        return right(logits(trained(method, images[train], label[train], seed), images[test], "head"))

    seeds = jnp.arange(5)
    together, single = jax.jit(jax.vmap(ours))(seeds)
    augmented = jax.jit(jax.vmap(ablation))(seeds)
    print("aggregated", together, "distilled", single, "augmented", augmented)
    assert_beats(together, augmented)
    assert np.min(together) > 0.95 and np.all(single > 0.9 * together)
    assert abs(np.mean(augmented) - 0.5) < 0.15
