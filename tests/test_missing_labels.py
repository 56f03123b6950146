"""Several labels of which few are said, losses and rules: loop forms in float64, edges, what they are for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import sigmoid, worst_error
from recipes import tiny
from test_multilabel_objectives import EXACT, LABEL, logits_of
from toys import assert_beats

import labelfx
from labelfx.labels.evidence import Evidence
from labelfx.labels.rules import asymmetric, given, large_loss, reflective
from labelfx.loop.training import Loop
from labelfx.models.classifiers import class_activation, linear
from labelfx.objectives.label_relations import hybrid
from labelfx.objectives.missing_labels import entropy_maximisation, variational_pu
from labelfx.objectives.multilabel import asymmetric as asl
from labelfx.objectives.multilabel import binary_cross_entropy, multi_focal

TARGET = np.array([[1, 0.25, np.nan], [np.nan, np.nan, np.nan], [0, 0.9, 1], [np.nan, 1, np.nan], [np.nan, 0, 0.5]])
RNG = np.random.default_rng(0)


def test_entropy_maximisation():
    def loop(z):
        total, rows = 0, 0
        for row, targets in zip(z, TARGET, strict=True):
            if np.isnan(targets).all():
                continue
            rows += 1
            for score, q in zip(row, targets, strict=True):
                p = sigmoid(score)
                if np.isnan(q):
                    total += 0.3 * (p * np.log(p) + (1 - p) * np.log(1 - p))
                else:
                    total += (1 if q == 1 else 0.7) * -(q * np.log(p) + (1 - q) * np.log(1 - p))
        return total / rows

    assert worst_error(entropy_maximisation, loop, logits_of(5, 3), TARGET, alpha=0.3, beta=0.7) < EXACT


def test_the_gradient_of_an_unknown_entry_is_towards_a_half():
    with jax.enable_x64(True):
        z, target = jnp.array([[-3.0, 0, 2]]), jnp.array([[np.nan, np.nan, np.nan]])
        one = jnp.concatenate([target, jnp.ones((1, 1))], 1)
        found = jax.grad(lambda z: entropy_maximisation(z, one, alpha=0.4, beta=1.0))(jnp.append(z, 9.0)[None])[0, :3]
    p = np.asarray(sigmoid(z[0]))
    np.testing.assert_allclose(found, 0.4 * p * (1 - p) * np.asarray(z[0]), rtol=1e-12)


PU_LABEL = np.array([[1, 0, -1], [-1, 1, -1], [0, 1, -1], [1, -1, -1], [0, -1, -1]], np.int8)


@pytest.mark.parametrize("gamma", [0.0, 0.55])
@pytest.mark.parametrize("alpha", [0.2, 2.0])
def test_variational_pu(gamma, alpha):
    z = logits_of(5, 3)
    z[:, 2] = 0.7  # no spread, no positive
    still_tau = [1 if c == 2 else min(alpha * np.std(z[:, c]), 1) for c in range(3)]
    still = [np.mean(sigmoid(z[:, c] / still_tau[c])) ** gamma for c in range(3)]

    def loop(z):
        total = 0
        for c in range(3):
            phi = [sigmoid(score / still_tau[c]) for score in z[:, c]]
            total += still[c] * np.log(sum(phi) / 5)
            positive = [np.log(each) for each, y in zip(phi, PU_LABEL[:, c], strict=True) if y == 1]
            total -= sum(positive) / max(len(positive), 1)
        return total

    assert worst_error(variational_pu, loop, z, PU_LABEL, alpha=alpha, gamma=gamma) < EXACT


@pytest.mark.parametrize("focal_gradient", [True, False])
@pytest.mark.parametrize("unknown", ["ignore", "negative"])
def test_multi_focal(unknown, focal_gradient):
    z, weight = logits_of(5, 3), np.random.default_rng(1).integers(0, 4, (5, 3)) / 2
    keys = {"gamma_positive": 1.0, "gamma_negative": 2.5, "clip": 0.1, "margin": 0.5}

    def parts(score, y, w):
        p = sigmoid(score - 0.5) if y == 1 else sigmoid(score)
        if y == 1:
            return (1 - p) ** 1.0, -np.log(p)
        return ((p - 0.1) ** (2.5 + w), -np.log(1 - (p - 0.1))) if p.real > 0.1 else (0, 0)

    def loop(z, of):
        rows = []
        for row, (scores, labels, weights) in enumerate(zip(z, LABEL, weight, strict=True)):
            entries = [
                w * of(row, place, score, y, w)
                for place, (score, y, w) in enumerate(zip(scores, labels, weights, strict=True))
                if w and (y >= 0 or (unknown == "negative" and (labels >= 0).any()))
            ]
            rows += [sum(entries)] if entries else []
        return sum(rows) / len(rows)

    value = functools.partial(loop, of=lambda row, place, *entry: np.prod(parts(*entry)))
    frozen = functools.partial(
        loop, of=lambda row, place, score, y, w: parts(z[row, place], y, w)[0] * parts(score, y, w)[1]
    )
    how = keys | {"focal_gradient": focal_gradient, "unknown": unknown}
    error = worst_error(multi_focal, value, z, LABEL, weight, gradient_of=None if focal_gradient else frozen, **how)
    assert error < EXACT


def test_multi_focal_with_equal_classes_is_asymmetric():
    how = {"gamma_positive": 0.0, "clip": 0.05, "focal_gradient": True, "unknown": "ignore"}
    with jax.enable_x64(True):
        z = logits_of(5, 3)
        found = multi_focal(z, LABEL, np.ones((5, 3)), gamma_negative=3.0, margin=0.0, **how)
        np.testing.assert_allclose(found, asl(z, LABEL, gamma_negative=4.0, **how), rtol=EXACT)


HYBRID_LABEL = np.array([[1, 1, 0, 0], [1, -1, 0, 1], [0, 0, 0, -1], [0, 1, -1, 1], [1, 0, 0, 0]], np.int8)


def loop_correlation(values, rows):
    """Of two columns over these rows; None where either is constant there."""
    left, right = ([column[i] for i in rows] for column in values)
    count = max(len(rows), 1)
    left, right = ([x - sum(each) / count for x in each] for each in (left, right))
    spread = [sum(x * x for x in each) / count for each in (left, right)]
    if min(each.real for each in spread) < 1e-7:
        return None
    return sum(x * y for x, y in zip(left, right, strict=True)) / count / np.sqrt(spread[0] * spread[1])


@pytest.mark.parametrize("weight", [None, np.array([1.0, 0.5, 2, 0, 1])])
def test_hybrid(weight):
    features = np.random.default_rng(2).normal(size=(5, 6))
    each = np.ones(5) if weight is None else weight

    def loop(z):
        p = sigmoid(z)
        binary = [
            w * sum(-np.log(p[i, c] if y == 1 else 1 - p[i, c]) for c, y in enumerate(HYBRID_LABEL[i]) if y >= 0)
            for i, w in enumerate(each)
            if w
        ]
        penalties = []
        for c in range(4):
            for d in range(4):
                both = [i for i in range(5) if HYBRID_LABEL[i, c] >= 0 and HYBRID_LABEL[i, d] >= 0]
                given = loop_correlation((HYBRID_LABEL[:, c].astype(float), HYBRID_LABEL[:, d].astype(float)), both)
                found = loop_correlation((p[:, c], p[:, d]), range(5))
                if c != d and given is not None and found is not None:
                    penalties.append((found - given) ** 2)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        anchors = []
        for i in range(5):
            scores = {j: unit[i] @ unit[j] / 0.5 for j in range(5) if j != i}
            total = np.log(sum(np.exp(s) for s in scores.values()))
            sets = [set(np.flatnonzero(row == 1)) for row in HYBRID_LABEL]
            share = {j: len(sets[i] & sets[j]) / max(len(sets[i] | sets[j]), 1) for j in scores}
            if sum(share.values()):
                log_p = sum(share[j] * (scores[j] - total) for j in scores) / sum(share.values())
                anchors.append(-log_p)
        return sum(binary) / len(binary) + 3 * sum(penalties) / len(penalties) + 0.2 * sum(anchors) / 5

    keys = {"correlation": 3.0, "contrast": 0.2, "temperature": 0.5}
    assert worst_error(hybrid, loop, logits_of(5, 4, scale=1.0), HYBRID_LABEL, features, weight, **keys) < 1e-11


@pytest.mark.parametrize(
    "objective",
    [
        functools.partial(variational_pu, alpha=1.0, gamma=0.55),
        lambda z, y: entropy_maximisation(z, jnp.where(y < 0, jnp.nan, y.astype(z.dtype)), alpha=0.1, beta=0.2),
        lambda z, y: hybrid(z, y, jnp.zeros((2, 3)), correlation=1.0, contrast=1.0, temperature=0.1),
        lambda z, y: multi_focal(z, y, jnp.ones(2), **PUBLISHED),
    ],
)
def test_nothing_known_and_sure_logits(objective):
    call = jax.jit(jax.value_and_grad(objective))
    for z in (np.array([[200.0, -200, 0], [90, -90, 0]]), np.zeros((2, 3))):
        for label in (-np.ones((2, 3)), np.zeros((2, 3)), np.ones((2, 3))):
            value, gradient = call(jnp.asarray(z, jnp.float32), jnp.asarray(label, jnp.int8))
            assert np.isfinite(value) and np.isfinite(gradient).all()


PUBLISHED = {"gamma_positive": 0.0, "gamma_negative": 3.0, "clip": 0.05, "margin": 1.0}
PUBLISHED |= {"focal_gradient": False, "unknown": "negative"}


def evidence(probs, label, progress, **columns):
    probs, label = np.asarray(probs, np.float32), np.asarray(label, np.int8)
    rows = np.flatnonzero((label >= 0).any(1))
    nothing = np.zeros((len(probs), 0), np.float32)
    return Evidence(probs, nothing, np.full(len(probs), np.nan), {"label": label, **columns}, rows, progress)


def said_of(count, seed):
    """Probabilities and single positives; the last row has no label."""
    rng = np.random.default_rng(seed)
    label = np.where(np.arange(4) == rng.integers(0, 4, count)[:, None], 1, -1)
    label[-1] = -1
    return rng.random((count, 4)), label


def test_asymmetric_pseudo_labels_are_the_lowest_and_stay():
    probs, label = said_of(41, 0)
    first = asymmetric(evidence(probs, label, 0.6), RNG, share=0.9, warmup=0.5)
    later = evidence(said_of(41, 1)[0], label, 0.8, target=first["target"])
    second = asymmetric(later, RNG, share=0.9, warmup=0.5)
    for c in range(4):
        open_ = np.flatnonzero(label[:40, c] < 0)
        count = int(0.9 * 0.2 * len(open_) + 1e-6)
        lowest = open_[np.argsort(probs[open_, c])[:count]]
        assert set(np.flatnonzero(first["label"][:, c] == 0)) == set(lowest)
        np.testing.assert_array_equal(first["target"][lowest, c], probs[lowest, c].astype(np.float32))
        np.testing.assert_array_equal(second["target"][lowest, c], first["target"][lowest, c])
        added = int(0.9 * 0.6 * len(open_) + 1e-6) - count
        rest = np.setdiff1d(open_, lowest)
        more = rest[np.argsort(later.probs[rest, c])[:added]]
        assert set(np.flatnonzero(second["label"][:, c] == 0)) == {*lowest, *more}
    assert (first["target"][label == 1] == 1).all() and np.isnan(first["target"][-1]).all()
    assert first["weight"].tolist() == [1] * 40 + [0]
    before = asymmetric(evidence(probs, label, 0.5), RNG, share=0.9, warmup=0.5)
    assert np.isnan(before["target"][label < 0]).all()


def test_the_largest_losses_are_rejected_or_corrected():
    probs, label = said_of(41, 0)
    unknown = (label < 0) & (np.arange(41) < 40)[:, None]
    count = int(np.ceil(0.1 * 0.5 * unknown.sum()))
    largest = unknown & (probs >= np.sort(probs[unknown])[-count])
    for scheme, becomes in (("reject", -1), ("correct", 1)):
        found = large_loss(evidence(probs, label, 0.6), RNG, share=0.1, warmup=0.2, scheme=scheme)["label"]
        np.testing.assert_array_equal(found == becomes, largest | (label == becomes) & ~unknown)
        np.testing.assert_array_equal(found[unknown & ~largest], 0)
    at_first = large_loss(evidence(probs, label, 0.2), RNG, share=0.1, warmup=0.2, scheme="reject")["label"]
    np.testing.assert_array_equal(at_first[:40], np.maximum(label[:40], 0))


def test_reflective_recalls_and_weighs():
    probs, label = said_of(41, 0)
    label[:, 3] = -1
    label[np.arange(41) % 5 == 0, 0] = 0  # known
    mean = probs[(label >= 0).any(1)].mean(0)
    found = reflective(evidence(probs, label, 0.5), RNG, threshold=0.4, power=0.5, warmup=0.5)
    seen = (label >= 0).any(1)[:, None]
    np.testing.assert_array_equal(
        found["label"] == 1, (label == 1) | (label < 0) & seen & (probs > np.maximum(mean, 0.4))
    )
    number = (found["label"] == 1).sum(0)
    np.testing.assert_allclose(found["weight"], seen * (1 + np.log(number.max() / number)) ** 0.5, rtol=1e-6)
    for early in (
        reflective(evidence(probs, label, 0.4), RNG, threshold=0.4, power=0.5, warmup=0.5),
        reflective(evidence(probs, label, 0.5), RNG, threshold=1.0, power=0.5, warmup=0.0),
    ):
        np.testing.assert_array_equal(early["label"], label)
    assert (early["weight"][0] >= 1).all() and early["weight"][0, 3] == early["weight"].max()  # as with one positive


def test_rules_of_several_labels_refuse_classes():
    one = evidence(np.ones((2, 2)), np.zeros((2, 2)), 0.0)._replace(columns={"label": np.zeros(2, np.int32)})
    with pytest.raises(ValueError, match="several labels a row"):
        reflective(one, RNG, threshold=0.5, power=1.0, warmup=0.0)


SEEDS = range(5)


def fit(objective, x, *columns, steps=400, rate=0.05, outputs=2):
    """Logits [S, N, C] of a linear network of each seed, of a bias and the features x [S, N, F], after full-batch Adam
    on `objective(logits, *columns)`."""
    tx = optax.adam(rate)

    def one(key, x, *columns):
        def step(carry, _):
            w, moments = carry
            updates, moments = tx.update(jax.grad(lambda w: objective(x @ w, *columns))(w), moments)
            return (optax.apply_updates(w, updates), moments), None

        w = 0.01 * jax.random.normal(key, (x.shape[1], outputs))
        return x @ jax.lax.scan(step, (w, tx.init(w)), None, steps)[0][0]

    x = jnp.asarray(np.concatenate([x, np.ones((*x.shape[:2], 1))], -1), jnp.float32)
    columns = [jnp.asarray(c, jnp.int8 if np.issubdtype(c.dtype, np.integer) else jnp.float32) for c in columns]
    with jax.numpy_dtype_promotion("standard"):
        return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), len(x)), x, *columns))


def drawn(of):
    """Arrays [S, ...] of what `of(rng)` draws for each seed."""
    return [np.stack(each) for each in zip(*(of(np.random.default_rng(seed)) for seed in SEEDS), strict=True)]


def precision(scores, positive):
    """Average precision; ties count as one threshold."""
    return np.mean([np.mean(positive[scores >= score]) for score in scores[positive]])


def test_what_entropy_maximisation_is_for():
    """P123: who labels names the label that is plainest alone, of a row's one to three. Assumed negative, a label that
    others outshine is taught to be absent; acknowledged as unknown, it ranks higher."""

    def draw(rng):
        truth = rng.random((200, 3)) < 0.4
        truth[np.arange(200), rng.integers(0, 3, 200)] = True
        x = truth * rng.uniform(1, 2, (200, 3)) + 0.4 * rng.normal(size=(200, 3))
        plainest = np.argmax(np.where(truth, x, -np.inf), 1)
        return x, np.where(np.arange(3) == plainest[:, None], 1, -1), truth

    x, label, truth = drawn(draw)
    target, how = np.where(label > 0, 1, np.nan), {"outputs": 3, "steps": 200}
    em = fit(functools.partial(entropy_maximisation, alpha=0.05, beta=0.0), x, target, **how)
    an = fit(functools.partial(binary_cross_entropy, unknown="negative"), x, label, **how)
    found = [[np.mean([precision(z[i, :, c], truth[i, :, c]) for c in range(3)]) for i in SEEDS] for z in (em, an)]
    assert_beats(*found)


def test_what_variational_pu_is_for():
    """P12: three inputs with P(y | x) .9, .5 and .05, of whose positives 30 % are said. Assumed negative, no input is
    predicted positive; from positive and unlabelled rows the likely one is, the unlikely one is not; and the middle
    is inflated: ranked well, but not calibrated."""
    kind = np.repeat(np.arange(3), 200)
    chance = 0.3 * np.array([0.9, 0.5, 0.05])[kind]
    x, label = drawn(lambda rng: (np.eye(3)[kind], (rng.random(600) < chance)[:, None].astype(np.int8)))
    how = {"outputs": 1, "rate": 0.1, "steps": 600}
    an = fit(functools.partial(binary_cross_entropy, unknown="ignore"), x, label, **how)
    pu = fit(functools.partial(variational_pu, alpha=2.0, gamma=0.55), x, label, **how)
    assert (sigmoid(an) < 0.5).all()
    tau = np.minimum(2 * pu.std(1), 1)
    top, middle, low = (sigmoid(pu[:, 200 * each] / tau) for each in range(3))
    print(top.ravel(), middle.ravel(), low.ravel())
    assert top.min() > 0.9 and low.max() < 0.3 and middle.min() > 0.6


def test_what_reflective_and_multi_focal_are_for():
    """P57: a label that 10 of 500 rows are said to have, while as many have it and are not told, beside a frequent one.
    ASL, for which the untold are negative, finds less of it than COMIC's rounds of recall and weights."""

    def draw(rng):
        truth = np.stack([np.arange(500) < 20, rng.random(500) < 0.5], 1)
        label = truth.astype(np.int8)
        label[10:480, 0] = -1
        return 2.0 * truth + rng.normal(size=(500, 2)) * 0.7, label

    x, label = drawn(draw)
    how = {"gamma_positive": 0.0, "clip": 0.05, "focal_gradient": False, "unknown": "negative"}
    z = fit(functools.partial(asl, gamma_negative=1.0, **how), x, label, steps=200)
    ablation = np.mean(z[:, 10:20, 0] > 0, 1)
    rule = functools.partial(reflective, threshold=0.5, power=1.0, warmup=0.0)
    for _ in range(3):
        taught = [rule(evidence(sigmoid(z[i]), label[i], 0.5), RNG) for i in SEEDS]
        said = (np.stack([each[name] for each in taught]) for name in ("label", "weight"))
        z = fit(functools.partial(multi_focal, gamma_negative=0.0, margin=1.0, **how), x, *said, steps=200)
    assert_beats(np.mean(z[:, 10:20, 0] > 0, 1), ablation)


@pytest.mark.parametrize("scheme", ["reject", "correct"])
def test_what_large_loss_is_for(scheme):
    """P125: a quarter of the positives is said. Without those of large loss the others are found."""

    def draw(rng):
        truth = rng.random((300, 2)) < 0.4
        label = np.where(truth & (rng.random(truth.shape) < 0.25), 1, -1)
        label[:, 1] = np.where((label < 0).all(1), truth[:, 1], label[:, 1])  # every row says something
        return 3.0 * truth + rng.normal(size=(300, 2)), label, truth[:, 0]

    x, label, truth = drawn(draw)
    z = fit(functools.partial(binary_cross_entropy, unknown="negative"), x, label, steps=200)
    found = [np.mean(z[..., 0] > 0, 1, where=truth)]
    for _ in range(2):
        rule = functools.partial(large_loss, share=0.4, warmup=0.0, scheme=scheme)
        taught = np.stack([rule(evidence(sigmoid(z[i]), label[i], 0.5), RNG)["label"] for i in SEEDS])
        z = fit(functools.partial(binary_cross_entropy, unknown="ignore"), x, taught, steps=200)
        found.append(np.mean(z[..., 0] > 0, 1, where=truth))
    assert_beats(found[-1], found[0])


def test_what_the_correlation_term_is_for():
    """P86: b goes with a, but is said of 8 rows alone, too few for its own 20 features of noise. That predictions are
    to correlate as labels do carries what features say of a over to b."""

    def draw(rng):
        a = rng.permutation(120) % 2  # of the first 8 rows, too
        a[:8] = np.arange(8) % 2
        x = np.c_[2.0 * a + 0.3 * rng.normal(size=120), rng.normal(size=(120, 20))]
        return x, np.stack([a, np.where(np.arange(120) < 8, a, -1)], 1), x

    x, label, features = drawn(draw)
    found = []
    for correlation in (1.0, 0.0):
        z = fit(functools.partial(hybrid, correlation=correlation, contrast=0.0, temperature=0.1), x, label, features)
        found.append([precision(z[i, 8:, 1], label[i, 8:, 0] == 1) for i in SEEDS])
    assert min(found[0]) > 0.9
    assert_beats(*found)


def test_what_boosting_is_for():
    """P125: an object on 1 of 16 positions scores +1 there and -0.2 elsewhere: missed by the mean, found where positive
    scores are boosted. Without a boost it is the linear head on the mean."""
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 5)).astype(np.float32)
    ours, plain, pooled = class_activation(2, boost=5.0), class_activation(2, boost=1.0), linear(2)
    variables = ours.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        plain.apply(variables, x, train=False)[0], pooled.apply(variables, x.mean((1, 2)), train=False)[0], atol=1e-6
    )
    scores = np.full((1, 4, 4, 1), -0.2, np.float32)
    scores[0, 1, 2] = 1
    kernel = {"params": {"Dense_0": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}}
    found = [float(class_activation(1, boost=b).apply(kernel, scores, train=False)[0][0, 0]) for b in (1.0, 5.0)]
    np.testing.assert_allclose(found, [-0.125, 0.125], atol=1e-6)
    with pytest.raises(ValueError, match="class_activation reads a map"):
        ours.init(jax.random.key(0), x[:, 0, 0])


def test_given_pins_entries():
    label = np.array([[1, -1], [-1, -1]], np.int8)
    np.testing.assert_array_equal(given(evidence(label, label, 0.0), RNG)["pinned"], label >= 0)


@pytest.mark.slow
def test_a_round_knows_the_one_before_after_a_resume_too(tmp_path, monkeypatch):
    """Soft negatives of one round stay in the next, whether or not the run was stopped between the two."""
    config = tiny("curriculum_labeling", phases=(), steps=6, refresh_every=2)
    config |= {
        "data": {"name": "pasted", "of": "digits", "data_dir": None, "canvas": 16, "low": 1, "high": 3}
        | {"background": 0.2, "label": "several", "train": 48, "test": 16, "seed": 0},
        "labels": {"name": "all_labels", "weak": {"name": "single_positive"}},
    }
    config["method"] |= {
        "objective": {"name": "entropy_maximisation", "alpha": 0.1, "beta": 0.2},
        "rule": {"name": "asymmetric", "share": 0.9, "warmup": 0.1},
    }
    tables, refresh, log = [], Loop.refresh, Loop.log

    def kept(self, variables):
        refresh(self, variables)
        tables.append(self.table["target"])

    def killed(self, values):
        log(self, values)
        if self.done == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "refresh", kept)
    labelfx.train(config, tmp_path / "whole")
    first, second, third = tables
    soft = ~np.isnan(second) & (second < 1)
    assert not (first < 1).any() and soft.any() and (third < 1).sum() > soft.sum()
    np.testing.assert_array_equal(third[soft], second[soft])
    monkeypatch.setattr(Loop, "log", killed)
    with pytest.raises(KeyboardInterrupt):
        labelfx.train(config, tmp_path / "stopped")
    monkeypatch.setattr(Loop, "log", log)
    labelfx.train(config, tmp_path / "stopped")
    np.testing.assert_array_equal(tables[-1], third)
