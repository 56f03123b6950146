"""EMLC's step against NumPy, its gradient by differences through the student's step, and what that is worth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import sigmoid
from toys import assert_beats, one_layer, with_head

from labelfx.methods.semi_supervised.meta_correction import corrected, injected, meta_correction
from labelfx.models.heads import linear

RATE, MOMENTUM = 0.3, 0.9


def method_of(*, width=4, classes=3, meta_weight=1.0, inject=0.0, rate=RATE, teacher_rate=1.0):
    return meta_correction(
        with_head(one_layer("w", width), classes),
        optax.sgd(rate, MOMENTUM),
        100,
        augment=lambda rng, x: x,
        corrector=linear(features=1),
        teacher_optimizer=lambda steps: optax.sgd(teacher_rate),
        inject=inject,
        meta_weight=meta_weight,
    )


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def logits_of(p, x):
    features = x @ p["backbone"]["w"]
    return features, features @ p["head"]["Dense_0"]["kernel"] + p["head"]["Dense_0"]["bias"]


def retained(p, features, called):
    z = np.concatenate([features, np.eye(3)[called]], 1) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    return sigmoid(z[:, 0])


def total(teacher, corrector, student, clean, label, doubtful, given, meta_weight):
    """The loss of teacher and corrector, the student's gradient written out."""
    features, z = logits_of(teacher, clean)
    of_teacher = -np.mean(np.log(softmax(z))[np.arange(len(label)), label])
    of_retain = -np.mean(np.log(retained(corrector, features, label)))
    features, z = logits_of(teacher, doubtful)
    r = retained(corrector, features, given)[:, None]
    target = r * np.eye(3)[given] + (1 - r) * softmax(z)
    features, z = logits_of(student, doubtful)
    slope = (softmax(z) - target) / len(given)
    dense = student["head"]["Dense_0"]
    moved = {
        "backbone": {"w": student["backbone"]["w"] - RATE * doubtful.T @ (slope @ dense["kernel"].T)},
        "head": {
            "Dense_0": {
                "kernel": dense["kernel"] - RATE * features.T @ slope,
                "bias": dense["bias"] - RATE * slope.sum(0),
            }
        },
    }
    after = -np.mean(np.log(softmax(logits_of(moved, clean)[1]))[np.arange(len(label)), label])
    return meta_weight * after + of_teacher + of_retain, moved


def test_the_gradient_is_that_through_the_students_step():
    rng = np.random.default_rng(0)
    clean, doubtful = rng.normal(size=(6, 5)), rng.normal(size=(8, 5))
    label, given = rng.integers(0, 3, 6), rng.integers(0, 3, 8)
    weight = 5.0
    batch = {
        "labelled": {"input": clean, "label": label},
        "unlabelled": {"input": doubtful, "given": given},
        "audit": {"unlabelled": {"label": given}},
    }
    method = method_of(meta_weight=weight)
    old = method.init(jax.random.key(0), {"labelled": {"input": clean.astype(np.float32)}})
    with jax.enable_x64(True):
        old = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), old)
        new, metrics = jax.jit(method.step)(old, batch, jax.random.key(1))
    before, after = (jax.tree.map(lambda x: np.array(x, np.float64), each) for each in (old, new))
    rows = (clean, label, doubtful, given, weight)
    _, moved = total(before.teacher.params, before.corrector.params, before.student.params, *rows)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-10), after.student.params, moved)
    worst, largest = 0.0, 0.0
    for who in ("teacher", "corrector"):
        params = {each: getattr(before, each).params for each in ("teacher", "corrector")}
        gradient = jax.tree.map(np.subtract, params[who], getattr(after, who).params)
        for leaf, slopes in zip(jax.tree.leaves(params[who]), jax.tree.leaves(gradient), strict=True):
            for place in np.ndindex(leaf.shape):
                ends = []
                for move in (1e-5, -2e-5):
                    leaf[place] += move
                    ends.append(total(params["teacher"], params["corrector"], before.student.params, *rows)[0])
                leaf[place] += 1e-5
                worst = max(worst, abs((ends[0] - ends[1]) / 2e-5 - slopes[place]))
                largest = max(largest, abs(slopes[place]))
    print(worst, largest)
    assert worst < 1e-8 * max(1, largest)


def accuracies(meta_weight, seeds, *, width=10):
    """Of students of two classes of which the first is called the second six times in ten, with 20 right labels."""
    method = method_of(width=width, classes=2, meta_weight=meta_weight, inject=0.5, rate=0.1, teacher_rate=0.1)

    def rows(rng, n):
        truth = rng.integers(0, 2, n)
        x = rng.normal(size=(n, width))
        x[:, 0] += 3.0 * truth - 1.5
        given = np.where((truth == 0) & (rng.random(n) < 0.6), 1, truth)
        return x.astype(np.float32), truth.astype(np.int32), given.astype(np.int32)

    def fit(key, x, given, clean, label):
        batch = {
            "labelled": {"input": clean, "label": label},
            "unlabelled": {"input": x, "given": given},
            "audit": {"unlabelled": {"label": given}},
        }
        step = lambda old, key: (method.step(old, batch, key)[0], None)  # noqa: E731
        return jax.lax.scan(step, method.init(key, batch), jax.random.split(key, 300))[0]

    right = []
    fit = jax.jit(fit)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        (x, _, given), (clean, label, _), (x_test, truth, _) = rows(rng, 300), rows(rng, 20), rows(rng, 2000)
        params = jax.tree.map(np.asarray, fit(jax.random.key(seed), x, given, clean, label).student.params)
        right.append((logits_of(params, x_test)[1].argmax(1) == truth).mean())
    return np.array(right)


@pytest.mark.slow
def test_what_the_students_step_teaches_the_teacher():
    """P218: the control never hears of it, and its teacher has the right labels alone."""
    ours, control = (accuracies(weight, range(5)) for weight in (100.0, 0.0))
    print(ours.mean(), control.mean())
    assert_beats(ours, control)


def test_labels_that_are_replaced_are_right_or_wrong():
    label = jnp.asarray(np.arange(3000) % 3, jnp.int32)
    right, called = injected(jax.random.key(0), label, 3, 0.6)
    np.testing.assert_array_equal(right, called == label)
    assert abs(float(jnp.mean(right)) - 0.6) < 0.03 and called.min() == 0 and called.max() == 2
    assert injected(jax.random.key(0), label, 3, 0.0)[0].all()


def test_where_nothing_is_given_the_teacher_says_it_all():
    r, probs = jnp.asarray([[0.25], [0.25]]), jnp.asarray([[0.5, 0.5], [0.9, 0.1]])
    found = corrected(r, jnp.asarray([1, -1]), probs)
    np.testing.assert_allclose(found, [[0.375, 0.625], [0.9, 0.1]])


def test_an_optimiser_that_accumulates_is_refused():
    with pytest.raises(ValueError, match="config.optimizer.accumulate: must be 1"):
        meta_correction(
            with_head(one_layer("w", 4), 3),
            optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
            100,
            augment=lambda rng, x: x,
            corrector=linear(features=1),
            teacher_optimizer=lambda steps: optax.sgd(0.1),
            inject=0.5,
            meta_weight=1.0,
        )
