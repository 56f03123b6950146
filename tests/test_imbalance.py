"""Losses for long tails against loop-form NumPy in float64, what each is for, and accuracy on groups of classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import softmax, worst_error
from recipes import tiny
from scipy.stats import norm
from toys import adam, assert_beats

import labelfx
from labelfx.config import ConfigError
from labelfx.evals.groups import groups
from labelfx.methods.targets.soft_labels.networks import averaged
from labelfx.models.classifiers import cosine
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.imbalance import balanced_cross_entropy, ldam, logit_adjusted

EXACT = 1e-12
COUNTS = np.array([100, 7, 1])
LABEL = np.array([2, 0, -1, 1, 2], np.int32)
WEIGHT = np.array([1.0, 0.0, 3.0, 0.5, 2.0])


def loop(z, weight, *, counts, temperature=0.0, margin=0.0, scale=1.0, beta=0.0):
    by_class = [(1 - beta) / (1 - beta**n) for n in counts]
    losses = []
    for row, y, w in zip(z, LABEL, weight, strict=True):
        if y < 0 or w == 0:
            continue
        moved = row + temperature * np.log(counts / counts.sum())
        moved = scale * (moved - np.eye(len(counts))[y] * margin * (counts.min() / counts[y]) ** 0.25)
        losses.append(-w * by_class[y] / np.mean(by_class) * np.log(softmax(moved)[y]))
    return sum(losses) / len(losses) if losses else np.complex128(0)


@pytest.mark.parametrize("weight", [None, WEIGHT, np.zeros(5)])
@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        (logit_adjusted, {"temperature": 1.0}),
        (logit_adjusted, {"temperature": 0.3}),
        (balanced_cross_entropy, {"beta": 0.0}),
        (balanced_cross_entropy, {"beta": 0.99}),
        (ldam, {"margin": 0.5, "scale": 30.0, "beta": 0.0}),
        (ldam, {"margin": 0.2, "scale": 3.0, "beta": 0.9999}),
    ],
)
def test_losses_and_gradients(objective, settings, weight):
    def call(logits, weight):
        return objective(logits, jnp.asarray(LABEL), COUNTS, weight, **settings)

    z = np.random.default_rng(0).normal(size=(5, 3))
    each = np.ones(5) if weight is None else weight
    assert worst_error(call, functools.partial(loop, weight=each, counts=COUNTS, **settings), z, weight) < EXACT


def test_positions_have_classes_too():
    z, label = np.random.default_rng(0).normal(size=(2, 3, 2, 3)), np.arange(12).reshape(2, 3, 2) % 3
    with jax.enable_x64(True):
        for objective, settings in ((logit_adjusted, {"temperature": 1.0}), (balanced_cross_entropy, {"beta": 0.9})):
            flat = objective(jnp.asarray(z.reshape(12, 3)), jnp.asarray(label.ravel()), COUNTS, **settings)
            np.testing.assert_allclose(objective(jnp.asarray(z), jnp.asarray(label), COUNTS, **settings), flat)


def test_every_class_must_have_a_label():
    z, label = jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32)
    with pytest.raises(ValueError, match="class 1 has no label"):
        logit_adjusted(z, label, np.array([3, 0, 1]), temperature=1.0)
    with pytest.raises(ValueError, match=r"class_counts must be numbers of labels \[3\], got shape \(2,\)"):
        balanced_cross_entropy(z, label, np.array([3, 1]), beta=0.9)


def fitted(x, y, loss, steps=400):
    """A linear classifier of two classes on [N, F], by full batches."""
    tx = adam(0.05)

    def step(carry, _):
        params, moments = carry
        gradient = jax.grad(lambda p: loss(x @ p["w"] + p["b"][None], y))(params)
        updates, moments = tx.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), None

    start = {"w": jnp.zeros((x.shape[1], 2)), "b": jnp.zeros(2)}
    return jax.lax.scan(step, (start, tx.init(start)), None, steps)[0][0]


def test_logit_adjustment_finds_the_balanced_boundary():
    """Two Gaussians 100:1, at -1 and 1: the least balanced error is at 0 (accuracy Phi(1)); cross-entropy moves the
    boundary to log(100) / 2 on the side of the rare class, whose recall falls below a half."""
    normal = jax.scipy.stats.norm.cdf
    counts = np.array([5000, 50])
    y = jnp.asarray(np.repeat([0, 1], counts).astype(np.int32))

    @jax.jit
    def boundaries(seed):
        x = (2 * y - 1).astype(jnp.float32)[:, None] + jax.random.normal(jax.random.key(seed), (len(y), 1))
        losses = (
            functools.partial(cross_entropy, label_smoothing=0.0),
            lambda z, y: logit_adjusted(z, y, counts, temperature=1.0),
        )
        found = [fitted(x, y, loss) for loss in losses]
        cuts = jnp.stack([(p["b"][0] - p["b"][1]) / (p["w"][0, 1] - p["w"][0, 0]) for p in found])
        return (normal(1 + cuts) + normal(1 - cuts)) / 2, normal(1 - cuts)

    balanced, recall = map(np.asarray, zip(*[boundaries(seed) for seed in range(4)], strict=True))
    assert (recall[:, 0] < 0.5).all() and (balanced[:, 1] > float(normal(1.0)) - 0.01).all()
    assert_beats(balanced[:, 1], balanced[:, 0])


def test_margins_separate_rare_classes_further():
    """Where the margin is met exactly, distances to the boundary are in the ratio (n_0 / n_1)^(1/4) of Cao et al."""
    counts = np.array([160, 10])
    angle = jnp.pi / 2 * jnp.linspace(0.02, 0.98, 400)  # of a row, between the two vectors of a classifier

    def needed(label):
        """The least difference of cosines at which the loss is log 2: where the lowered logits tie."""
        z = jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)[:, None]
        one = jax.vmap(lambda z: ldam(z, jnp.array([label]), counts, margin=0.5, scale=30.0, beta=0.0))
        difference = (z[:, 0, 0] - z[:, 0, 1]) * (1 - 2 * label)
        return float(jnp.min(jnp.where(one(z) < np.log(2), difference, jnp.inf)))

    assert abs(needed(1) - 0.5) < 0.01 and abs(needed(1) / needed(0) - 2) < 0.05


def cut_of(x, y):
    """Where linear discriminant analysis of two classes on a line has its boundary."""
    low, high = x[y == 0], x[y == 1]
    variance = np.mean(np.concatenate([low - low.mean(), high - high.mean()]) ** 2)
    prior = np.log(len(low) / len(high))
    return (low.mean() + high.mean()) / 2 + variance * prior / (high.mean() - low.mean())


def test_unlabelled_rows_of_the_same_classes_help_and_others_do_not():
    """Pseudo-labels of relevant rows move the boundary of a long tail back, as those of rows of no class of the task do
    not (Yang & Xu 2020, sections 2.1 and 2.3)."""

    def accuracies(seed):
        rng = np.random.default_rng(seed)
        y, half = np.repeat([0, 1], [500, 10]), np.arange(2000) % 2
        x, relevant = (2 * each - 1 + 0.7 * rng.normal(size=len(each)) for each in (y, half))
        outside = -3 + 0.7 * rng.normal(size=2000)
        base = cut_of(x, y)

        def again(more):
            return cut_of(np.concatenate([x, more]), np.concatenate([y, more > base]))

        cuts = np.array([base, again(relevant), again(outside)])
        return (norm.cdf((cuts + 1) / 0.7) + norm.cdf((1 - cuts) / 0.7)) / 2

    base, relevant, outside = zip(*map(accuracies, range(20)), strict=True)
    assert_beats(relevant, base)
    assert_beats(relevant, outside)


def test_an_average_over_encoders_sees_what_each_is_blind_to():
    """Backdoor adjustment: the mean over strata of what each encoder says, each adjusted for the prior. Half of the
    rare class is told by the first feature, half by the second, and an encoder sees one; adjusting the prior of either
    alone leaves half of the class unseen."""
    counts = np.array([2000, 100])
    y = jnp.asarray(np.repeat([0, 1], counts).astype(np.int32))

    def rows(key, y):
        place = jnp.stack([(y == 1) & (jnp.arange(len(y)) % 2 == side) for side in (0, 1)], 1)
        return 4.0 * place.astype(jnp.float32) + 0.7 * jax.random.normal(key, (len(y), 2))

    @jax.jit
    def worst(seed):
        keys = jax.random.split(jax.random.key(seed))
        half = jnp.repeat(jnp.arange(2), 1000)
        x, test = rows(keys[0], y), rows(keys[1], half)
        each = []
        for side in (0, 1):
            p = fitted(x[:, side : side + 1], y, lambda z, y: logit_adjusted(z, y, counts, temperature=1.0))
            each.append(test[:, side : side + 1] @ p["w"] + p["b"][None])
        together = averaged(jnp.stack(each), "class", "probabilities")
        # the score of a rare row against a common one, in each half of the rare class: the area under the curve
        score = jnp.stack([z[:, 1] - z[:, 0] for z in (*each, together)])
        won = score[:, 1000:, None] > score[:, None, :1000]
        return jnp.min(jnp.stack([won[:, side::2].mean((1, 2)) for side in (0, 1)]), 0)

    found = np.stack([worst(seed) for seed in range(4)])
    assert (found[:, :2] < 0.6).all() and (found[:, 2] > 0.9).all()


def test_cosines_are_cosines():
    head = cosine(4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    variables = head.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["kernel"])
    wanted = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (kernel / np.linalg.norm(kernel, axis=0))
    np.testing.assert_allclose(head.apply(variables, x, train=True)[0], wanted, atol=1e-6)


def test_groups_of_classes():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, -1])
    named = np.array([0, 0, 0, 1, 1, 0, 2, 2, 0, 0])
    told = np.repeat([2, 3, 0, 1], [9, 6, 2, 1])  # the order of the classes by labels
    found = groups(np.eye(4)[named], labels, told, 4)
    each = {0: 3 / 4, 1: 1 / 2, 2: 1.0, 3: 0.0}
    assert found["balanced_accuracy"] == np.mean(list(each.values()))
    assert found["head_accuracy"] == (each[2] + each[3]) / 2
    assert (found["medium_accuracy"], found["tail_accuracy"]) == (each[0], each[1])
    assert (found["worst_class"], found["worst_accuracy"]) == (3, 0.0)
    assert (found["imbalance"], found["n"], found["n_labels"]) == (9.0, 9, 18)
    with pytest.raises(ValueError, match="no known label"):
        groups(np.eye(4), np.full(4, -1), told, 4)


def test_a_run_binds_the_counts_of_its_labels(tmp_path):
    objective = {"name": "logit_adjusted", "temperature": 1.0}
    config = tiny("supervised", labels={"name": "long_tail", "imbalance": 5.0}, evals={"groups": {}})
    config["method"]["objective"] = objective
    found = labelfx.train(config, tmp_path / "run")["metrics"]["groups"]
    assert 4.5 < found["imbalance"] < 5.6
    config["labels"] = {"name": "classes", "classes": (0, 1)}
    with pytest.raises(ConfigError, match=r"config.method: .*class 2 has no label"):
        labelfx.train(config, tmp_path / "other")
