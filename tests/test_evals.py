"""Evals against loop-form float64 NumPy and scikit-learn, on real digits."""

import functools
import json
import re

import jax
import numpy as np
import pytest
from recipes import recipe, tiny
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from labelfx import config as configs
from labelfx import evals
from labelfx import scores as drawing
from labelfx.config import ConfigError, command, rooms
from labelfx.evals import blocks, classification, floors, representation, scores
from labelfx.loop import inputs, results
from labelfx.loop.run import build_model, load_data
from labelfx.models import Model, stack
from labelfx.reports import sweep
from labelfx.table import table

RNG = np.random.default_rng(0)


@functools.cache
def digits(per_class, seed=0):
    """Labelled images and labels, then 500 test images and labels; 8x8x1 uint8."""
    data = load_digits()
    images = (data.images * 15.9).astype(np.uint8)[..., None]
    labels = data.target.astype(np.int32)
    order = np.random.default_rng(seed).permutation(len(labels))
    test, rest = order[:500], order[500:]
    rows = np.concatenate([rest[labels[rest] == c][:per_class] for c in range(10)])
    return images[rows], labels[rows], images[test], labels[test]


def pixels(per_class):
    labelled, labels, test, test_labels = digits(per_class)
    return *(x.reshape(len(x), -1).astype(np.float32) / 255 for x in (labelled, test)), labels, test_labels


def probe(x, test, labels, test_labels):
    return classification.linear_probe(x, labels, test, test_labels, 10)


def scaled(x, test):
    x, test = x.astype(np.float64), test.astype(np.float64)
    mean = x.mean(axis=0)
    norm = np.sqrt(np.mean([(row - mean) @ (row - mean) for row in x]))
    return (x - mean) / norm, (test - mean) / norm


def reference_fit(x, labels, regularisation):
    return LogisticRegression(C=1 / (regularisation * len(x)), tol=1e-6, max_iter=5000).fit(x, labels)


def test_linear_probe_is_cross_validated_logistic_regression():
    features, test_features, labels, test_labels = pixels(10)
    result = probe(features, test_features, labels, test_labels)
    x, test = scaled(features, test_features)
    losses = {}
    for regularisation in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        held_out = np.zeros((len(x), 10))
        for train_rows, rows in StratifiedKFold(5, shuffle=True, random_state=0).split(x, labels):
            held_out[rows] = reference_fit(x[train_rows], labels[train_rows], regularisation).predict_proba(x[rows])
        losses[regularisation] = log_loss(labels, held_out)
    chosen = min(losses, key=losses.get)
    assert result == {
        "accuracy": pytest.approx(reference_fit(x, labels, chosen).score(test, test_labels), abs=1e-6),
        "regularisation": chosen,
        "chosen_by": "5-fold cross-validation in the label view",
        "converged": True,
        "split": "test",
        "n": 500,
        "n_labels": 100,
    }


def test_probabilities_of_rows_that_a_probe_did_not_see():
    features, _, labels, _ = pixels(10)
    found = classification.cross_val_pred_probs(features, labels, 10)
    x, _ = scaled(features, features)
    expected = {}
    for regularisation in (1e-3, 1e-4):
        probs = expected[regularisation] = np.zeros((len(x), 10))
        for train_rows, rows in StratifiedKFold(5, shuffle=True, random_state=0).split(x, labels):
            probs[rows] = reference_fit(x[train_rows], labels[train_rows], regularisation).predict_proba(x[rows])
    best = min(expected.values(), key=lambda probs: log_loss(labels, probs))
    np.testing.assert_allclose(found, best, atol=1e-2)  # classes that miss by more differ by 0.2
    with pytest.raises(ValueError, match="no class has 5 labels"):
        classification.cross_val_pred_probs(features[:4], labels[:4], 10)


@pytest.mark.parametrize(("devices", "size"), [(1, 100), (1, 30), (8, 5)])
@pytest.mark.parametrize(("regularisation", "tolerance"), [(1e-2, 1e-3), (1e-4, 1e-2)])
def test_every_fold_is_fitted_to_convergence(regularisation, tolerance, devices, size):
    """In one block; in several, the last of them filled up; on devices, of which the last have nothing but filling."""
    features, test_features, labels, _ = pixels(10)
    scaled_features, test = scaled(features, test_features)
    kept_by = np.stack([np.ones(100), np.arange(100) % 3 > 0])
    left, singular, axes = np.linalg.svd(scaled_features, full_matrices=False)
    start = np.zeros((64, 2, 10), np.float32), np.zeros((2, 10), np.float32)
    x, train_on = (left * singular).astype(np.float32), kept_by.astype(np.float32)
    moment = (singular**2 / 100).astype(np.float32)
    mesh = blocks.own_devices(every=devices > 1)
    placed = (
        blocks.place(mesh, size, x),
        blocks.place(mesh, size, labels, fill=-1),
        blocks.place(mesh, size, train_on.T),
    )
    numbers = moment, np.ones((1, 1), np.float32), *np.float32([regularisation, 3e-5])
    weights, bias, held_out, converged = classification._fit(*start, *placed, *numbers, mesh=mesh, size=size)
    assert converged
    for fold, kept in enumerate(train_on > 0):
        reference = reference_fit(scaled_features[kept], labels[kept], regularisation)
        logits = test @ axes.T @ np.asarray(weights[:, fold]) + np.asarray(bias[None, fold])
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities, reference.predict_proba(test), atol=tolerance)
    left_out = train_on[1] == 0
    expected = log_loss(labels[left_out], reference.predict_proba(scaled_features[left_out]))
    np.testing.assert_allclose(held_out, expected, rtol=tolerance)


def test_linear_probe_of_many_labels_holds_one_fifth_out(monkeypatch):
    """Beyond `LARGE` only. It chooses and classifies as logistic regression fitted to convergence does."""
    features, test_features, labels, test_labels = pixels(40)
    monkeypatch.setattr(classification, "GRID", (1e-1, 1e-3, 1e-5))
    monkeypatch.setattr(classification, "LARGE", features.size * 10)
    assert probe(features, test_features, labels, test_labels)["chosen_by"].startswith("5-fold cross-validation")
    monkeypatch.setattr(classification, "LARGE", features.size * 10 - 1)
    result = probe(features, test_features, labels, test_labels)
    x, test = scaled(features, test_features)
    train_rows, rows = next(StratifiedKFold(5, shuffle=True, random_state=0).split(x, labels))
    losses = {}
    for regularisation in (1e-1, 1e-3, 1e-5):
        held_out = reference_fit(x[train_rows], labels[train_rows], regularisation).predict_proba(x[rows])
        losses[regularisation] = log_loss(labels[rows], held_out)
    chosen = min(losses, key=losses.get)
    assert result == {
        "accuracy": pytest.approx(reference_fit(x, labels, chosen).score(test, test_labels), abs=0.001),
        "regularisation": chosen,
        "chosen_by": "a held-out fifth of the label view",
        "converged": True,
        "split": "test",
        "n": 500,
        "n_labels": len(labels),
    }
    few = np.where((labels == 3) & (np.cumsum(labels == 3) > 4), 4, labels)
    assert probe(features, test_features, few, test_labels)["chosen_by"].startswith("fixed")


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(("count", "size"), [(100, 100), (403, 403), (403, 17)])
def test_principal_axes_of_many_labels(count, size, every):
    """Orthogonal, and the features' second moment is diagonal on them; with fewer rows than features too. The features
    themselves stay as they are, wherever the devices turn theirs."""
    x = (np.maximum(RNG.normal(size=(count, 64)) @ RNG.normal(size=(64, 200)), 0) + 3).astype(np.float32)
    given, mesh = x.copy(), blocks.own_devices(every)
    turned, mean, turn, second_moment = classification._principal_axes(x, mesh, size, True)
    np.testing.assert_array_equal(x, given)
    centred = np.float64(x) - np.float64(x).mean(axis=0)
    scale = np.sqrt(np.mean(np.sum(centred**2, axis=1)))
    np.testing.assert_allclose(mean[0], np.float64(x).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scale**2 * turn.T @ turn, np.eye(turn.shape[1]), atol=1e-5)
    assert len(turned) % (size * mesh.size) == 0
    turned = np.float64(turned)[:count]
    np.testing.assert_allclose(turned @ turn.T * scale**2, centred, atol=1e-3)
    moment = turned.T @ turned / count
    np.testing.assert_allclose(moment, np.diag(second_moment), atol=1e-5 * second_moment.max())


def test_test_labels_choose_nothing():
    x, test, labels, test_labels = pixels(10)
    first, again = probe(x, test, labels, test_labels), probe(x, test, labels, test_labels)
    permuted = probe(x, test, labels, RNG.permutation(test_labels))
    assert first == again
    assert {**permuted, "accuracy": None} == {**first, "accuracy": None}
    assert permuted["accuracy"] < 0.3 < first["accuracy"]


def test_regularisation_is_fixed_below_five_labels_in_any_class():
    x, test, labels, test_labels = pixels(10)
    for kept, chosen_by in (
        (4, "fixed (fewer than 5 labels a class)"),
        (5, "5-fold cross-validation in the label view"),
    ):
        few = np.where((labels == 3) & (np.cumsum(labels == 3) > kept), 4, labels)
        result = probe(x, test, few, test_labels)
        assert result["chosen_by"] == chosen_by
        assert kept == 5 or result["regularisation"] == 1e-2


def test_classes_of_few_labels_count_alike_in_the_linear_probe():
    """As logistic regression with balanced class weights: else so strong a penalty leaves it to the bias, and that to
    the commonest classes. Of as many labels each nothing changes."""
    x, test, labels, test_labels = pixels(16)
    kept = np.concatenate([np.flatnonzero(labels == c)[: 1 + 15 * (c < 2)] for c in range(10)])  # 16, 16, 1, 1, ...
    result = probe(x[kept], test, labels[kept], test_labels)
    few, wide = scaled(x[kept], test)
    how = {"C": 1 / (1e-2 * len(kept)), "tol": 1e-10, "max_iter": 10_000}
    weighted, plain = (
        LogisticRegression(**how, class_weight=each).fit(few, labels[kept]) for each in ("balanced", None)
    )
    assert result["accuracy"] == pytest.approx(weighted.score(wide, test_labels), abs=2e-3)
    assert result["accuracy"] > plain.score(wide, test_labels) + 0.2


def test_linear_probe_ignores_shift_scale_and_rotation_of_features():
    x, test, labels, test_labels = pixels(1)
    rotation, _ = np.linalg.qr(RNG.normal(size=(64, 64)))
    moved = [(40 * v @ rotation + 3).astype(np.float32) for v in (x, test)]
    assert probe(*moved, labels, test_labels)["accuracy"] == pytest.approx(
        probe(x, test, labels, test_labels)["accuracy"], abs=0.005
    )


def test_linear_probe_of_collapsed_features_is_a_guess_not_a_failure():
    x, test, labels, test_labels = pixels(1)
    result = probe(np.ones_like(x), np.ones_like(test), labels, test_labels)
    assert result["converged"] and result["accuracy"] < 0.2


def reference_votes(train, labels, test, k, temperature, num_classes):
    scores = np.zeros((len(test), num_classes))
    for q, query in enumerate(test.astype(np.float64)):
        cosines = [query @ row / np.linalg.norm(query) / np.linalg.norm(row) for row in train.astype(np.float64)]
        for row in sorted(range(len(train)), key=lambda i: -cosines[i])[:k]:
            scores[q, labels[row]] += np.exp(cosines[row] / temperature)
    return scores


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.1), (40, 1.0), (40, 0.02)])
def test_knn_votes(k, temperature):
    train, test = RNG.normal(size=(40, 6)).astype(np.float32), RNG.normal(size=(9, 6)).astype(np.float32)
    labels = RNG.integers(0, 4, 40).astype(np.int32)
    scores = evals.knn_predict(train, labels, test, k=k, temperature=temperature, num_classes=5)
    assert scores.shape == (9, 5) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, reference_votes(train, labels, test, k, temperature, 5), rtol=2e-5)
    traced = jax.jit(functools.partial(evals.knn_predict, k=k, temperature=temperature, num_classes=5))
    np.testing.assert_allclose(traced(train, labels, test), scores, rtol=1e-6)


def test_knn_votes_stay_finite_at_low_temperature():
    train, test = RNG.normal(size=(40, 6)).astype(np.float32), RNG.normal(size=(9, 6)).astype(np.float32)
    labels = RNG.integers(0, 4, 40).astype(np.int32)
    scores = np.asarray(evals.knn_predict(train, labels, test, k=10, temperature=0.005, num_classes=4))
    expected = reference_votes(train, labels, test, 10, 0.005, 4)
    one = reference_votes(train, labels, test, 1, 0.005, 4).max(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, expected / one, rtol=2e-4, atol=1e-30)


def test_knn_is_the_same_over_several_blocks():
    train, test = RNG.normal(size=(30, 4)).astype(np.float32), RNG.normal(size=(2100, 4)).astype(np.float32)
    labels = RNG.integers(0, 3, 30).astype(np.int32)
    how = dict(k=5, temperature=0.1, num_classes=3)
    whole = evals.knn_predict(train, labels, test, **how)
    for rows in (slice(0, 3), slice(1023, 1026), slice(2047, 2100)):
        np.testing.assert_allclose(whole[rows], evals.knn_predict(train, labels, test[rows], **how), rtol=1e-5)


def test_knn_of_many_rows_is_searched_by_all_devices(monkeypatch):
    train, test = RNG.normal(size=(43, 6)).astype(np.float32), RNG.normal(size=(9, 6)).astype(np.float32)
    labels = RNG.integers(0, 4, 43).astype(np.int32)
    how = dict(k=7, temperature=0.1, num_classes=4)
    few = evals.knn_predict(train, labels, test, **how)
    monkeypatch.setattr(classification, "MANY", 0)
    monkeypatch.setattr(classification, "VOTES", 100)  # of three queries at once
    many = evals.knn_predict(train, labels, test, **how)
    assert len(many.sharding.device_set) == jax.local_device_count() > 1
    np.testing.assert_allclose(many, few, rtol=2e-5)


def test_knn_refuses_what_it_cannot_count():
    x, labels = np.ones((3, 2), np.float32), np.array([0, 1, 1], np.int32)
    with pytest.raises(ValueError, match="k = 4, but there are 3 training rows"):
        evals.knn_predict(x, labels, x, k=4, temperature=0.1, num_classes=2)
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match=f"train_labels has {wrong}; labels must be 0 to 1"):
            evals.knn_predict(x, np.array([0, 1, wrong], np.int32), x, k=1, temperature=0.1, num_classes=2)


def test_knn_eval_says_how_many_voted():
    x, test, labels, test_labels = pixels(2)
    result = classification.knn(x, labels, test, test_labels, 10, k=200, temperature=0.1)
    votes = reference_votes(x, labels, test, 20, 0.1, 10)
    accuracy = np.mean(votes.argmax(axis=1) == test_labels)
    assert result == {"accuracy": accuracy, "k": 20, "temperature": 0.1, "split": "test", "n": 500, "n_labels": 20}


def test_head():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, -3.0]], np.float32)
    result = classification.head(logits, np.array([0, 1, 1], np.int32))
    nll = (np.log(1 + np.exp(-2)) + np.log(1 + np.exp(-1)) + np.log(1 + np.exp(6))) / 3
    assert result["accuracy"] == pytest.approx(2 / 3) and (result["split"], result["n"]) == ("test", 3)
    assert result["negative_log_likelihood"] == pytest.approx(nll, rel=1e-6)


@pytest.mark.parametrize("shape", [(50, 8), (5, 12)])
def test_rankme(shape):
    with jax.enable_x64(True):
        z = RNG.normal(size=shape) * np.logspace(0, -4, shape[1]) + 1
        s = np.linalg.svd(z, compute_uv=False)
        entropy = -sum((v / sum(s) + 1e-7) * np.log(v / sum(s) + 1e-7) for v in s)
        value = evals.rankme(z)
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, np.exp(entropy), rtol=1e-12)


def test_rankme_is_a_rank():
    orthonormal, _ = np.linalg.qr(RNG.normal(size=(40, 8)))
    np.testing.assert_allclose(evals.rankme(orthonormal.astype(np.float32)), 8, rtol=1e-5)
    rank_one = np.outer(RNG.normal(size=40), RNG.normal(size=8)).astype(np.float32)
    np.testing.assert_allclose(evals.rankme(rank_one), 1, rtol=1e-4)
    np.testing.assert_allclose(evals.rankme(np.zeros((40, 8), np.float32)), 1, rtol=1e-4)


@pytest.mark.parametrize("parameter", [1.0, 2.0, 200.0])
def test_alignment_and_uniformity(parameter):
    with jax.enable_x64(True):
        a, b = RNG.normal(size=(2, 33, 5))
        unit_a, unit_b = ([row / np.sqrt(row @ row) for row in x] for x in (a, b))
        distances = [np.linalg.norm(p - q) for p, q in zip(unit_a, unit_b, strict=True)]
        expected = np.mean([d**parameter for d in distances])
        np.testing.assert_allclose(evals.alignment(a, b, alpha=parameter), expected, rtol=1e-10)
        pairs = [np.sum((unit_a[i] - unit_a[j]) ** 2) for i in range(33) for j in range(i)]
        expected = np.log(np.mean([np.exp(-parameter * d) for d in pairs]))
        np.testing.assert_allclose(evals.uniformity(a, t=parameter), expected, rtol=1e-10)


def test_uniformity_extremes_and_blocks():
    opposite = np.array([[2.0, 0.0], [-3.0, 0.0]], np.float32)
    np.testing.assert_allclose(evals.uniformity(opposite, t=2.0), -8, rtol=1e-6)
    np.testing.assert_allclose(evals.uniformity(np.ones((7, 3), np.float32), t=2.0), 0, atol=1e-5)
    several = RNG.normal(size=(1500, 3)).astype(np.float32)
    unit = several.astype(np.float64) / np.linalg.norm(several.astype(np.float64), axis=1, keepdims=True)
    kernel = np.exp(-2 * (2 - 2 * unit @ unit.T))
    expected = np.log((kernel.sum() - np.trace(kernel)) / (1500 * 1499))
    np.testing.assert_allclose(evals.uniformity(several, t=2.0), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="at least 2 rows of features, not 1"):
        evals.uniformity(opposite[:1], t=2.0)


class Lazy:
    """Images that exist only a few rows at a time."""

    def __init__(self, images):
        self.images, self.shape, self.dtype = images, images.shape, images.dtype

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray)
        return self.images[rows]


def random_projection(traces):
    """A backbone whose training mode is of no use, and which records the shapes that it is traced with."""

    def init(rng, x):
        assert x.dtype == np.float32
        return {"params": jax.random.normal(rng, (x[0].size, 64)) / 4}

    def apply(variables, x, *, train, rng=None):
        traces.append(x.shape)
        hidden = jax.nn.relu(x.reshape(len(x), -1) @ variables["params"])
        return 0 * hidden if train else hidden, {}

    return Model(init, apply)


def projected(images, weights):
    x = [np.float64(image.ravel()) / 255 for image in images]
    return np.stack([np.maximum(row @ np.float64(weights), 0) for row in x])


def test_features_are_the_model_in_evaluation_mode_compiled_once():
    traces = []
    model, images = random_projection(traces), digits(5)[0]
    variables = {"params": RNG.normal(size=(64, 64)).astype(np.float32)}
    expected = projected(images, variables["params"])
    for source in (images, Lazy(images), images[:3]):
        found = evals.features(model, variables, source, batch=16)
        assert type(found) is np.ndarray and found.dtype == np.float32
        np.testing.assert_allclose(found, expected[: len(source)], atol=1e-5)
    assert traces == [(16, 8, 8, 1)]


@pytest.mark.parametrize(("per_class", "low", "high"), [(10, 0.82, 0.93), (1, 0.45, 0.75)])
def test_floor_of_raw_pixels(per_class, low, high):
    labelled, labels, test, test_labels = digits(per_class)
    result = floors.raw_pixels(Lazy(labelled), labels, test, test_labels, 10)
    assert low < result["accuracy"] < high
    assert result == probe(*pixels(per_class))


def test_floor_of_a_random_encoder():
    labelled, labels, test, test_labels = digits(10)
    result = floors.random_encoder(random_projection([]), 7, labelled, labels, Lazy(test), test_labels, 10)
    assert 0.75 < result["accuracy"] < 0.93
    weights = jax.random.normal(jax.random.key(7), (64, 64)) / 4
    x, q = (projected(images, weights).astype(np.float32) for images in (labelled, test))
    assert result["accuracy"] == pytest.approx(probe(x, q, labels, test_labels)["accuracy"], abs=0.005)


def test_recall_at_k_is_leave_one_out_by_cosine():
    """Against a loop over queries, in more than one block; scale says nothing, and equal cosines keep their order."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1100, 3)).astype(np.float32)
    features[1] = 4 * features[0]  # exactly the same direction
    labels = rng.integers(0, 40, len(features)).astype(np.int32)
    labels[7] = 99  # alone in its class
    result = representation.recall_at_k(features, labels, k=(1, 2, 4))
    unit = features.astype(np.float64) / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    hits = dict.fromkeys((1, 2, 4), 0)
    for row in range(len(features)):
        order = [other for other in np.argsort(-unit @ unit[row], kind="stable") if other != row]
        for k in hits:
            hits[k] += labels[row] in labels[order[:k]]
    assert result == {f"recall_at_{k}": hits[k] / len(features) for k in hits} | {"split": "test", "n": len(features)}
    assert 0 < result["recall_at_1"] < result["recall_at_4"] < 1
    with pytest.raises(ValueError, match=r"k = \(1, 3\): must be numbers less than the 3 test images"):
        representation.recall_at_k(features[:3], labels[:3], k=(1, 3))


def noisy(rng, images):
    return images / 255 + 0.2 * jax.random.normal(rng, images.shape)


@pytest.mark.parametrize("projector", [None, random_projection([])])
def test_score_distribution_is_that_of_all_pairs_of_two_views(projector):
    """270 images, more than one call of the network, against the cosines of every pair one by one."""
    model, images = random_projection([]), digits(0)[2][:270]
    seen = []

    def recorded(rng, images):
        views = noisy(rng, images.astype(np.float32))
        jax.debug.callback(lambda x: seen.append(np.asarray(x, np.float64)), views, ordered=True)
        return views

    weights = {"backbone": RNG.normal(size=(64, 64)).astype(np.float32)}
    if projector:
        weights["projector"] = RNG.normal(size=(64, 64)).astype(np.float32)
    found = scores.score_distribution(model, projector, {"params": weights}, Lazy(images), 3, augment=recorded)
    jax.effects_barrier()
    first, second = (np.concatenate(each)[:270].reshape(270, -1) for each in (seen[:2], seen[2:]))
    assert np.abs(first - second).max() > 0.1  # no noise is drawn twice
    for matrix in weights.values():
        first, second = (np.maximum(x @ np.float64(matrix), 0) for x in (first, second))
    positive, negative = [], []
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            (positive if i == j else negative).append(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    for kind, values in (("positive", positive), ("negative", negative)):
        assert found[f"{kind}_mean"] == pytest.approx(np.mean(values), abs=1e-5)
        assert found[f"{kind}_std"] == pytest.approx(np.std(values), abs=1e-5)
        counts, _ = np.histogram(values, 50, (-1, 1))
        assert sum(found[f"{kind}_counts"]) == len(values)
        assert np.abs(counts - found[f"{kind}_counts"]).sum() <= 1e-3 * len(values) + 2  # rounding at the bins' edges
    assert (found["embeddings"], found["split"], found["n"]) == ("projector" if projector else "backbone", "test", 270)
    with pytest.raises(ValueError, match="at least 2 test images"):
        scores.score_distribution(model, projector, {"params": weights}, images[:1], 3, augment=recorded)


def test_a_run_writes_and_draws_its_score_distribution(tmp_path):
    """Of the projector in a phase that has one, of the backbone in one that has none."""
    own = {"score_distribution": {"augment": {"name": "identity"}}}
    finetune = {"method": recipe("finetune")["method"], "batch": {"labelled": 16, "unlabelled": 0}}
    phases = ({}, finetune | {"backbone": "previous"})
    config = configs.check(tiny("feature_transform", evals=own, phases=phases))
    (dataset, view), model = load_data(config, tmp_path), build_model(config)
    projector = configs.build(inputs.HEADS, config.method["projector"])
    variables = stack(backbone=model, projector=projector).init(jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    during = results.run_evals(config, dataset, view, model, variables, phase=0)["score_distribution"]
    results.finish(config, tmp_path, dataset, view, model, variables, {})
    found = drawing.read(tmp_path)
    assert (during["embeddings"], found["embeddings"]) == ("projector", "backbone")
    assert during["positive_mean"] == pytest.approx(1) and found["positive_counts"][-1] == found["n"]
    with pytest.raises(FileNotFoundError, match="results.json: no such file"):
        drawing.read(tmp_path / "elsewhere")
    assert "<svg" in drawing.draw(tmp_path).read_text()
    (tmp_path / "results.json").write_text('{"metrics": {}}')
    with pytest.raises(ConfigError, match="results.json: has no score_distribution; add it to config.evals"):
        drawing.draw(tmp_path)


def test_an_eval_that_fails_costs_no_other(tmp_path, monkeypatch, capsys):
    """The file has the others and why it failed; a sweep tries it again, and only an interrupt gets through."""
    config = tiny("supervised", evals={"head": {}, "knn": {"k": 1, "temperature": 0.1}, "linear_probe": {}})
    job = sweep.Job(tmp_path, config)

    def fail(error):
        def knn(*_, k, temperature):
            raise error

        monkeypatch.setattr(classification, "knn", functools.wraps(classification.knn)(knn))
        rooms._functions.cache_clear()  # which has the real one, if anybody asked before

    def started():
        monkeypatch.setattr(command.app, "run", lambda main, **_: main([]))
        command.run(lambda _: sweep.work_off([job]), config=False, strings={})

    def written():
        return json.loads((tmp_path / "results.json").read_text())

    fail(KeyboardInterrupt())
    with pytest.raises(SystemExit, match="130"):
        started()
    assert not (tmp_path / "results.json").exists()
    fail(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 80 GB\n  of 16"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        started()
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "evaluating" in line] == [
        f"evaluating {name} ..." for name in ("head", "knn", "linear_probe")
    ]
    why = written()["failed"]["knn"]
    assert re.fullmatch(r"\S+test_evals.py:\d+: JaxRuntimeError: RESOURCE_EXHAUSTED: 80 GB", why)
    assert end.value.code == 1 and lines[-1].startswith(f"error: the eval knn failed: {why}; {tmp_path}/results.json")
    assert written()["metrics"].keys() == {"head", "linear_probe"} and written()["failed"].keys() == {"knn"}
    assert f"warning: {tmp_path}/results.json: knn failed: {why}" in table([tmp_path])
    monkeypatch.undo()
    rooms._functions.cache_clear()
    sweep.work_off([job])
    assert "1 runs, 0 of them done before" in capsys.readouterr().err
    assert written()["metrics"].keys() == set(config["evals"]) and "failed" not in written()
    sweep.work_off([job])
    assert "1 runs, 1 of them done before" in capsys.readouterr().err
