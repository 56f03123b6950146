"""ConR as a method: its whole loss, what it makes of targets, the data and the eval that go with it, and whether it
does what it is for."""

import cmath
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import assert_close, complex_step
from recipes import recipe, tiny
from sklearn.datasets import load_diabetes
from test_matching_objectives import loop_conr
from toys import adam, assert_beats, noise, one_layer

import labelfx
from labelfx.config import ConfigError
from labelfx.data import Split
from labelfx.data.sources.tables import diabetes
from labelfx.evals.regression import regression_error
from labelfx.finished import weights
from labelfx.hardware import blank
from labelfx.loop.state import named
from labelfx.methods.from_labels.contrastive_regression import contrastive_regression
from labelfx.models.backbones import mlp

MLP = {"name": "mlp", "hidden": (4,), "dtype": "float32"}
SETTINGS = dict(weight=0.5, window=0.4, temperature=0.2, distance_scale=0.3)


def loop_loss(w, kernel, bias, views, target, rarity, weight, **settings):
    """On the 2B rows `views`, with their targets and weights."""
    z = np.array([[cmath.tanh(sum(x * w[:, j])) for j in range(w.shape[1])] for x in views])
    predictions = [sum(row * kernel[:, 0]) + bias[0] for row in z]
    errors = [p - y if p.real > y else y - p for p, y in zip(predictions, target, strict=True)]
    return sum(errors) / len(errors) + weight * loop_conr(z, target, predictions, rarity, **settings)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_step_descends_the_loop_form_of_the_loss(weight):
    settings = SETTINGS | {"weight": weight}
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(5, 1, 1, 4)), np.array([3, 4, 9, 3, 8])
    method = contrastive_regression(one_layer("w", 3, jnp.tanh), optax.sgd(1.0), augment=noise(0.1), **settings)
    old = method.init(jax.random.key(0), {"labelled": {"input": image.astype(np.float32)}})
    with jax.enable_x64(True):
        key = jax.random.key(1)
        table = {k: v.astype(np.float64) for k, v in method.refresh(old, Split(image, label), key, 0.0).items()}
        old = jax.tree.map(lambda x: 0.3 * jnp.asarray(x, jnp.float64) + 0.1, old)
        new, metrics = jax.jit(method.step)(old, {"labelled": {"input": jnp.asarray(image), **table}}, key)
        views = np.stack([noise(0.1)(each, image) for each in named(key, "labelled/a", "labelled/b")], 1).reshape(10, 4)
        flat, metrics = jax.device_get(([jax.tree.leaves(state.params) for state in (old, new)], metrics))
    (w, bias, kernel), _ = flat
    target, rarity = (np.repeat(table[name], 2) for name in ("target", "rarity"))
    loss = partial(loop_loss, views=views, target=target, rarity=rarity, **settings)
    assert_close(metrics["loss"], loss(w, kernel, bias).real)
    expected = (
        complex_step(lambda w: loss(w, kernel, bias), w),
        complex_step(lambda bias: loss(w, kernel, bias), bias),
        complex_step(lambda kernel: loss(w, kernel, bias), kernel),
    )
    for before, after, gradient in zip(*flat, expected, strict=True):
        assert_close(before - after, gradient)
    assert metrics["contrast"] > 0.1 and (metrics["loss"] > metrics["error"]) == (weight > 0)


def test_targets_and_weights_are_of_the_visible_labels_alone():
    method = contrastive_regression(one_layer("w", 3), None, augment=None, **SETTINGS)
    labels = np.array([0, np.nan, 2, 20, 1, np.nan, 3], np.float32)
    table = method.refresh(None, Split(None, labels), None, 0.0)
    known = [0, 2, 20, 1, 3]
    scale = np.std(known)
    np.testing.assert_allclose(table["target"][labels >= 0], (known - np.mean(known)) / scale, rtol=1e-6)
    near = np.array([sum(abs(x - y) <= 0.4 * scale for y in known) for x in known])
    assert near.tolist() == [3, 4, 1, 4, 3]
    np.testing.assert_allclose(table["rarity"][labels >= 0], near**-0.5 / np.mean(near**-0.5), rtol=1e-6)
    equal = method.refresh(None, Split(None, np.array([7, 7, np.nan], np.float32)), None, 0.0)
    assert equal["target"][:2].tolist() == [0, 0] and equal["rarity"][:2].tolist() == [1, 1]
    assert all(column.dtype == np.float32 for column in table.values())


def test_rare_targets_do_not_collapse_into_the_frequent():
    """Seven rows in eight have a target of 0 to 19, the others one 40 larger: rows that differ in one input, beside
    six of noise.

    Without ConR a rare row's nearest neighbour in the features is more often a frequent one. Seeds 0 to 9, other rows
    than those trained on, half of them rare. The error of the rare targets falls too, but by a twentieth only; with a
    weight of 4 or few rare rows it does not.
    """
    steps, size, batch = 120, 256, 64

    def draw(rng, count, share):
        rare = rng.random(count) < share
        low = rng.integers(0, 20, count)
        x = np.concatenate([low[:, None] / 10 - 1, rare[:, None], rng.normal(size=(count, 6))], 1)
        return x[:, None, None].astype(np.float32), (low + 40 * rare).astype(np.float32)

    def method(weight):
        settings = dict(window=0.25, temperature=0.2, distance_scale=0.2)
        return contrastive_regression(
            mlp(hidden=(16,), dtype="float32"), adam(3e-3), augment=noise(0.05), weight=weight, **settings
        )

    def data(seed):
        rng = np.random.default_rng(seed)
        image, label = draw(rng, size, 0.125)
        rows = rng.integers(0, size, (steps, batch))
        columns = {"input": image, **method(0).refresh(None, Split(image, label), None, 0.0)}
        return {k: v[rows] for k, v in columns.items()}, draw(rng, 400, 0.5), label

    def train(weight, seed, batches, test):
        key = jax.random.key(seed)

        def step(state, each):
            t, labelled = each
            return method(weight).step(state, {"labelled": labelled}, jax.random.fold_in(key, t))[0], None

        state = method(weight).init(key, {"labelled": {"input": test}})
        params = jax.lax.scan(step, state, (jnp.arange(steps), batches))[0].params
        z, _ = mlp(hidden=(16,), dtype="float32").apply({"params": params["backbone"]}, test, train=False)
        dense = params["regressor"]["Dense_0"]
        return z, (z @ dense["kernel"])[:, 0] + dense["bias"]

    drawn = [data(seed) for seed in range(10)]
    batches = jax.tree.map(lambda *each: np.stack(each), *(each[0] for each in drawn))
    tests = np.stack([each[1][0] for each in drawn])
    by_seed = jax.vmap(train, (None, 0, 0, 0))
    found = jax.jit(jax.vmap(by_seed, (0, None, None, None)))(np.float32([0.5, 0]), np.arange(10), batches, tests)
    apart, error = np.zeros((2, 10)), np.zeros((2, 10))
    for setting, seed in np.ndindex(2, 10):
        z, prediction = (np.asarray(each[setting, seed], np.float64) for each in found)
        (_, label), trained = drawn[seed][1:]
        z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        nearest = np.argmax(z @ z.T - 3 * np.eye(len(z)), 1)
        rare = label >= 40
        apart[setting, seed] = np.abs(label - label[nearest])[rare].mean()
        error[setting, seed] = np.abs(trained.mean() + trained.std() * prediction - label)[rare].mean()
    print(apart.mean(1), error.mean(1))
    assert_beats(-apart[0], -apart[1])
    assert error[0].mean() < error[1].mean()


def test_diabetes():
    data, original = diabetes(), load_diabetes(scaled=False)
    for split, rows in ((data.train, [r for r in range(442) if r % 4 != 3]), (data.test, range(3, 442, 4))):
        assert split.inputs.dtype == split.labels.dtype == np.float32
        np.testing.assert_array_equal(split.inputs, original.data[rows].astype(np.float32))
        np.testing.assert_array_equal(split.labels, original.target[rows])
    assert data.class_names == () and blank.SHAPES["diabetes"] == (data.train.inputs.shape[1:], 0, len(data.train[0]))


def test_regression_error():
    labelled, test = np.array([0, 1, 2, 3, 11]), np.array([2, 12, 25])
    found = regression_error(np.array([3.0, 10.0, 20.0]), test, labelled, bin_width=10, few=4)
    assert found == {
        "error": 8 / 3,
        "few_shot_error": 3.5,
        "constant_error": 33 / 3,
        "few_shot_constant_error": 33 / 2,
        "split": "test",
        "n": 3,
        "n_few_shot": 2,
        "n_labels": 5,
    }
    found = regression_error(test + 1.0, test, test, bin_width=100, few=3)
    assert found["error"] == 1 and found["few_shot_error"] is None and found["n_few_shot"] == 0


def test_a_run_predicts_in_the_units_of_the_labels(tmp_path):
    config = recipe("contrastive_regression") | {"model": {"name": "mlp", "hidden": (), "dtype": "float32"}}
    config |= {"steps": 21, "log_every": 21, "devices": 1, "batch": {"labelled": 16, "unlabelled": 0}}
    found = labelfx.train(config, tmp_path)["metrics"]["regression_error"]
    train, test = diabetes()[:2]
    dense = weights.load(tmp_path / "weights" / "0.safetensors")["params"]["regressor"]["Dense_0"]
    x = (test.inputs - train.inputs.mean(0)) / train.inputs.std(0)
    outputs = x @ dense["kernel"][:, 0] + dense["bias"]
    error = np.abs(train.labels.mean() + train.labels.std() * outputs - test.labels).mean()
    np.testing.assert_allclose(found["error"], error, rtol=1e-5)


def test_what_does_not_fit_together_is_named(tmp_path):
    data = {"data": {"name": "diabetes"}, "labels": {"name": "all_labels"}, "model": MLP}
    with pytest.raises(ConfigError, match=r"method.name = 'consistency': needs classes, but 'diabetes' has none"):
        labelfx.train(tiny("fixmatch", **data), tmp_path / "classes")
    plain = tiny("supervised")["method"] | {"augment": {"name": "identity"}}
    with pytest.raises(ConfigError, match="config.method: label must be classes, integers, got float32"):
        labelfx.train(tiny("supervised", **data, method=plain), tmp_path / "loss")
    model, evals = {"name": "mlp", "hidden": (), "dtype": "float32"}, {"regression_error": {"bin_width": 1, "few": 2}}
    with pytest.raises(ConfigError, match="config.evals.regression_error: 'digits' has no targets of a regression"):
        labelfx.train(tiny("supervised", model=model, evals=evals), tmp_path / "eval")
    with pytest.raises(ConfigError, match=r"config.evals.head: contrastive_regression trains no head"):
        labelfx.train(tiny("contrastive_regression", model=model, evals={"head": {}}), tmp_path / "head")
