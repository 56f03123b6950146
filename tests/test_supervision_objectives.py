"""Losses of labels of every kind against loop-form NumPy in float64, identities between them, what each is for."""

import functools
import itertools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import sigmoid, softmax, worst_error
from toys import assert_beats

from labelfx.evals.bags import bag_auc
from labelfx.models.classifiers import attention
from labelfx.objectives import supervision
from labelfx.objectives.classification import cross_entropy, margin_cross_entropy, soft_cross_entropy
from labelfx.objectives.regression import absolute_error, squared_error

EXACT = 1e-12
POOLS = typing.get_args(supervision.Pool)
UNIFORM = tuple(tuple(0.0 if i == j else 0.5 for j in range(3)) for i in range(3))
NOISY = ((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.3, 0.0, 0.7))


def logits_of(*shape, seed=0, scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


def over(losses):
    """The mean of those that are there."""
    found = [each for each in losses if each is not None]
    return sum(found) / len(found) if found else np.complex128(0)


# Every row a class.

LABEL = np.array([2, 0, -1, 1, 2], np.int32)
WEIGHT = np.array([1.0, 0.0, 3.0, 0.5, 2.0])


def loop_cross_entropy(z, label, weight, smoothing):
    losses = []
    for row, y, w in zip(z.reshape(-1, z.shape[-1]), label.ravel(), weight.ravel(), strict=True):
        if y < 0 or w == 0:
            continue
        log_p = np.log(softmax(row))
        losses.append(-w * ((1 - smoothing) * log_p[y] + smoothing * log_p.mean()))
    return over(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_cross_entropy(smoothing, weight):
    each = np.ones(5) if weight is None else weight
    loop = functools.partial(loop_cross_entropy, label=LABEL, weight=each, smoothing=smoothing)
    assert worst_error(cross_entropy, loop, logits_of(5, 3), LABEL, weight, label_smoothing=smoothing) < EXACT


def test_cross_entropy_of_positions():
    label = np.random.default_rng(1).integers(-1, 3, (2, 3, 2)).astype(np.int32)
    per_row = np.array([0.5, 2.0])
    loop = functools.partial(loop_cross_entropy, label=label, weight=np.repeat(per_row, 6), smoothing=0.1)
    z = logits_of(2, 3, 2, 3)
    assert worst_error(cross_entropy, loop, z, label, per_row, label_smoothing=0.1) < EXACT
    each = np.broadcast_to(per_row[:, None, None], label.shape)
    assert worst_error(cross_entropy, loop, z, label, each, label_smoothing=0.1) < EXACT


@pytest.mark.parametrize("classes", [(2,), (0, 1), (), (0, 1, 2)])
def test_margin_cross_entropy(classes):
    added = np.array([1.7 if c in classes else 0.0 for c in range(3)])

    def loop(z):
        return loop_cross_entropy(z + added, LABEL, WEIGHT, 0.0)

    settings = {"margin": 1.7, "classes": classes}
    assert worst_error(margin_cross_entropy, loop, logits_of(5, 3), LABEL, WEIGHT, **settings) < EXACT


def test_a_margin_is_of_classes_that_are_there():
    with pytest.raises(ValueError, match=r"classes = \(1, 3\): must be classes 0..2"):
        margin_cross_entropy(jnp.zeros((5, 3)), jnp.asarray(LABEL), margin=1.0, classes=(1, 3))


def test_soft_cross_entropy():
    target = np.random.default_rng(2).dirichlet(np.ones(3), 5)
    target[3, 1] = np.nan

    def loop(z, weight):
        rows = zip(z, target, weight, strict=True)
        return over([-w * (t @ np.log(softmax(row))) for row, t, w in rows if w and not np.isnan(t).any()])

    z = logits_of(5, 3)
    assert worst_error(soft_cross_entropy, lambda z: loop(z, np.ones(5)), z, target) < EXACT
    assert worst_error(soft_cross_entropy, lambda z: loop(z, WEIGHT), z, target, WEIGHT) < EXACT


# One of several.

CANDIDATES = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]], bool)


def loop_candidates(z, weight, loss):
    losses = []
    for row, allowed, w in zip(z, CANDIDATES, weight, strict=True):
        if allowed.all() or not allowed.any() or w == 0:
            continue
        p = sum(softmax(row)[k] for k in range(4) if allowed[k])
        losses.append(w * {"log": -np.log(p), "exp": np.exp(-p), "mae": 1 - p}[loss])
    return over(losses)


@pytest.mark.parametrize("loss", ["log", "exp", "mae"])
def test_candidates(loss):
    z = logits_of(5, 4)
    for weight in (None, WEIGHT):
        each = np.ones(5) if weight is None else weight
        loop = functools.partial(loop_candidates, weight=each, loss=loss)
        assert worst_error(supervision.candidates, loop, z, CANDIDATES, weight, loss=loss) < EXACT


def test_what_complementary_losses_are():
    """SCL-NL is MCL-LOG of all classes but one, and FWD with a uniform T but for log(C - 1); SCL-EXP is e MCL-EXP."""
    z, complementary = logits_of(6, 3), np.array([0, 1, 2, 2, 1, 0], np.int32)
    others = np.arange(3) != complementary[:, None]
    p = np.array([softmax(row)[y] for row, y in zip(z, complementary, strict=True)])
    with jax.enable_x64(True):
        found = {loss: float(supervision.candidates(z, others, loss=loss)) for loss in ("log", "exp", "mae")}
        forward = float(supervision.forward(z, complementary, transition=UNIFORM, anchor=0.0))
        single = supervision.candidates(z, ~others, loss="log")
        same = cross_entropy(z, complementary, label_smoothing=0.0)
    np.testing.assert_allclose(found["log"], np.mean(-np.log(1 - p)), rtol=EXACT)
    np.testing.assert_allclose(np.e * found["exp"], np.mean(np.exp(p)), rtol=EXACT)
    np.testing.assert_allclose(found["mae"], np.mean(p), rtol=EXACT)
    np.testing.assert_allclose(forward - np.log(2), found["log"], rtol=EXACT)
    np.testing.assert_allclose(single, same, rtol=EXACT)


# Labels that may be wrong.


@pytest.mark.parametrize("anchor", [0.0, 1e-6, 0.1])
@pytest.mark.parametrize("transition", [UNIFORM, NOISY])
def test_forward(anchor, transition):
    matrix = np.array(transition)

    def loop(z):
        given = [(softmax(row) @ matrix)[y] for row, y in zip(z, LABEL, strict=True) if y >= 0]
        return over([-np.log(q + anchor) for q in given])

    z = logits_of(5, 3)
    assert worst_error(supervision.forward, loop, z, LABEL, transition=transition, anchor=anchor) < EXACT


def loop_parts(z, transition, counts):
    """The estimated risk of each true class."""
    inverse = np.linalg.inv(np.array(transition))
    given = [[np.log(softmax(row)) for row, y in zip(z, LABEL, strict=True) if y == j] for j in range(3)]
    counts = [len(rows) for rows in given] if counts is None else counts
    parts = np.zeros(3, z.dtype)
    for j, rows in enumerate(given):
        for k in range(3):
            parts[k] -= counts[j] / sum(counts) * inverse[j, k] * over([log_p[k] for log_p in rows])
    return parts


@pytest.mark.parametrize("clamp", ["none", "nonnegative", "ascent"])
@pytest.mark.parametrize("transition", [UNIFORM, NOISY])
@pytest.mark.parametrize("scale", [0.1, 6.0])
@pytest.mark.parametrize("counts", [None, np.array([45, 30, 25])])
def test_unbiased(clamp, transition, scale, counts):
    z = logits_of(5, 3, seed=3, scale=scale)
    below = loop_parts(z, transition, counts).real < 0

    def loop(z):
        parts = loop_parts(z, transition, counts)
        return parts[~below].sum() if clamp == "nonnegative" else parts.sum()

    def ascending(z):
        parts = loop_parts(z, transition, counts)
        return -parts[below].sum() if below.any() else parts.sum()

    keys = {"transition": transition, "clamp": clamp, "gradient_of": ascending if clamp == "ascent" else None}
    assert worst_error(supervision.unbiased, loop, z, LABEL, class_counts=counts, **keys) < EXACT
    assert below.any() == (scale == 6 and transition == UNIFORM)


def test_shares_of_a_batch_make_risks_negative_that_are_not():
    """P17: of a network that knows nothing no class has a negative risk; by the shares of a batch some have, and only
    those would be learnt from."""
    z, label = np.zeros((6, 3)), np.array([0, 0, 0, 0, 1, 2], np.int32)
    with jax.enable_x64(True):
        ascent = functools.partial(supervision.unbiased, z, label, transition=UNIFORM, clamp="nonnegative")
        plain = functools.partial(supervision.unbiased, z, label, transition=UNIFORM, clamp="none")
        even = np.array([100, 100, 100])
        np.testing.assert_allclose(ascent(class_counts=even), plain(class_counts=even), rtol=EXACT)
        assert ascent() > plain() + 0.1


def test_what_corrections_of_true_labels_are():
    z, label = logits_of(6, 3), np.array([0, 1, 2, 2, 1, 0], np.int32)
    perfect = tuple(map(tuple, np.eye(3)))
    with jax.enable_x64(True):
        expected = cross_entropy(z, label, label_smoothing=0.0)
        for clamp in ("none", "nonnegative", "ascent"):
            found = supervision.unbiased(z, label, transition=perfect, clamp=clamp)
            np.testing.assert_allclose(found, expected, rtol=EXACT)
        found = supervision.forward(z, label, transition=perfect, anchor=0.0)
    np.testing.assert_allclose(found, expected, rtol=EXACT)


def test_unbiased_is_the_risk_of_true_labels():
    """P17: exactly, over all labels that may be drawn; the nonnegative estimate is never below 0, nor is its mean too
    small."""
    z, truth = logits_of(2, 3, seed=4), np.array([0, 2])
    found, clamped, chances = [], [], []
    for label in itertools.product(range(3), repeat=2):
        chances.append(np.prod([NOISY[y][given] for y, given in zip(truth, label, strict=True)]))
        label = np.array(label, np.int32)
        with jax.enable_x64(True):
            found.append(float(supervision.unbiased(z, label, transition=NOISY, clamp="none")))
            clamped.append(float(supervision.unbiased(z, label, transition=NOISY, clamp="nonnegative")))
    risk = np.mean([-np.log(softmax(row))[y] for row, y in zip(z, truth, strict=True)])
    np.testing.assert_allclose(np.dot(chances, found), risk, rtol=EXACT)
    assert min(found) < 0 <= min(clamped)
    assert np.dot(chances, clamped) >= risk


# Positive and unlabelled rows.

OBSERVED = np.array([1, 0, 0, 1, 0, 0], bool)
PROPENSITY = np.array([0.5, np.nan, 0.2, 0.9, 1.0, 0.0])


@pytest.mark.parametrize("clamp", ["none", "nonnegative", "ascent"])
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("shift", [-8.0, 0.0, 3.0])
def test_positive_unlabelled(clamp, columns, shift):
    z = logits_of(6, columns)
    z[:, -1] += shift * np.where(OBSERVED, -1, 1)

    def parts(z):
        positive, negative = [], []
        for row, seen, e in zip(z, OBSERVED, PROPENSITY, strict=True):
            p = sigmoid(row[-1] - (row[0] if columns == 2 else 0))
            w = 1 / e if seen else 0
            positive.append(-w * np.log(p))
            negative.append(-(1 - w) * np.log(1 - p))
        return np.array([over(positive), over(negative)])

    below = parts(z)[1].real < 0

    def loop(z):
        return parts(z)[0] if clamp == "nonnegative" and below else parts(z).sum()

    def ascending(z):
        return -parts(z)[1] if below else parts(z).sum()

    keys = {"clamp": clamp, "gradient_of": ascending if clamp == "ascent" else None}
    assert worst_error(supervision.positive_unlabelled, loop, z, OBSERVED, PROPENSITY, **keys) < EXACT
    assert below == (shift == -8)


def test_one_propensity_is_upu_and_nnpu():
    """pi E_P[l+] + (E_U[l-] - pi E_P[l-]), all rows unlabelled; the second part at least 0 for nnPU."""
    z, e = logits_of(6, 1) - 6 * OBSERVED[:, None], 0.4
    p = sigmoid(z[:, 0])
    prior, positive, negative = OBSERVED.mean() / e, -np.log(p), -np.log(1 - p)
    rest = negative.mean() - prior * negative[OBSERVED].mean()
    shifted = z + 12 * OBSERVED[:, None]
    with jax.enable_x64(True):
        upu, nnpu = (
            supervision.positive_unlabelled(z, OBSERVED, np.full(6, e), clamp=c) for c in ("none", "nonnegative")
        )
        over_fitted = supervision.positive_unlabelled(shifted, OBSERVED, np.full(6, e), clamp="nonnegative")
    np.testing.assert_allclose(upu, prior * positive[OBSERVED].mean() + rest, rtol=EXACT)
    np.testing.assert_allclose(nnpu, prior * positive[OBSERVED].mean() + max(rest, 0), rtol=EXACT)
    p = sigmoid(shifted[:, 0])
    assert np.mean(-np.log(1 - p)) < prior * np.mean(-np.log(1 - p[OBSERVED]))
    np.testing.assert_allclose(over_fitted, prior * np.mean(-np.log(p[OBSERVED])), rtol=1e-9)


# Bags.

BAG = np.array([7, 3, 7, -1, 3, 7, 3, 5, 7], np.int32)
VALID = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0], bool)  # the last repeats a row of the first bag


def bags(valid=VALID):
    return [np.flatnonzero((BAG == each) & valid) for each in (7, 3, 5)]


def targets_of_bags(of_bag):
    return np.stack([of_bag.get(each, np.zeros_like(of_bag[7])) for each in BAG])


def loop_kl(z, target):
    losses = []
    for rows in bags():
        wanted = target[rows[0]]
        if np.isnan(wanted).any():
            continue
        mean = sum(softmax(z[i]) for i in rows) / len(rows)
        losses.append(sum(t * (np.log(t) - np.log(q)) for t, q in zip(wanted, mean, strict=True) if t))
    return over(losses)


def loop_count(z, target):
    """By enumeration of all labels of the bag."""
    losses = []
    for rows in bags():
        if np.isnan(target[rows[0]]).any():
            continue
        p = [sigmoid(z[i, -1] - (z[i, 0] if z.shape[1] == 2 else 0)) for i in rows]
        count = round(target[rows[0], -1] * len(rows))
        total = 0
        for labels in itertools.product((0, 1), repeat=len(rows)):
            if sum(labels) == count:
                total += np.prod([q if y else 1 - q for q, y in zip(p, labels, strict=True)])
        losses.append(-np.log(total))
    return over(losses)


@pytest.mark.parametrize("unknown", [False, True])
def test_proportion(unknown):
    target = targets_of_bags({7: np.array([0.5, 0, 0.5]), 3: np.array([0.2, 0.2, 0.6]), 5: np.array([1.0, 0, 0])})
    if unknown:
        target[BAG == 3, 1] = np.nan
    loop = functools.partial(loop_kl, target=target)
    assert worst_error(supervision.proportion, loop, logits_of(9, 3), BAG, target, VALID, divergence="kl") < EXACT
    binary = targets_of_bags({7: np.array([1 / 3, 2 / 3]), 3: np.array([1.0, 0]), 5: np.array([0.0, 1])})
    if unknown:
        binary[BAG == 3] = np.nan
    for columns in (1, 2):
        loop = functools.partial(loop_count, target=binary)
        arguments = logits_of(9, columns), BAG, binary[:, -columns:], VALID
        assert worst_error(supervision.proportion, loop, *arguments, divergence="count") < EXACT


def test_a_bag_of_one_row_is_a_label():
    z, label = logits_of(4, 2), np.array([1, 0, 0, 1], np.int32)
    bag, target = np.arange(4, dtype=np.int32), np.eye(2)[label]
    with jax.enable_x64(True):
        expected = cross_entropy(z, label, label_smoothing=0.0)
        found = [supervision.proportion(z, bag, target, divergence=each) for each in ("kl", "count")]
        pools = [supervision.pooled(z, bag, target, pool=each) for each in POOLS]
    np.testing.assert_allclose([*found, *pools], expected, rtol=EXACT)


def loop_pool(scores, pool, shared):
    if pool == "max":
        return max(scores, key=lambda score: score.real)
    if pool == "noisy_or":
        none = np.prod([1 - sigmoid(score) for score in scores])
        return np.log(1 - none) - np.log(none)
    if pool == "linear_softmax":
        s = [sigmoid(score) for score in scores]
        p = sum(each**2 for each in s) / sum(s)
        return np.log(p / (1 - p))
    if pool == "attention":
        weights = [np.exp(each) for each in shared]
        return sum(w * score for w, score in zip(weights, scores, strict=True)) / sum(weights)
    return np.log(sum(map(np.exp, scores))) if pool == "log_sum_exp" else sum(scores) / len(scores)


def loop_pooled(z, target, pool):
    scores = z[:, 1:] - z[:, :1] if z.shape[1] == 2 else z
    target = target[:, -scores.shape[1] :]
    losses = []
    for rows in bags():
        known = [c for c in range(scores.shape[1]) if not np.isnan(target[rows[0], c])]
        if known:
            p = {c: sigmoid(loop_pool([scores[i, c] for i in rows], pool, [z[i].mean() for i in rows])) for c in known}
            t = target[rows[0]]
            losses.append(-sum(t[c] * np.log(p[c]) + (1 - t[c]) * np.log(1 - p[c]) for c in known))
    return over(losses)


@pytest.mark.parametrize("pool,columns", [*itertools.product(POOLS[:5], (1, 2, 3)), ("attention", 2)])
def test_pooled(pool, columns):
    target = targets_of_bags({7: np.array([1.0, 0, 1]), 3: np.array([0.0, np.nan, 1]), 5: np.full(3, np.nan)})
    loop = functools.partial(loop_pooled, target=target[:, :columns], pool=pool)
    arguments = logits_of(9, columns), BAG, target[:, :columns], VALID
    assert worst_error(supervision.pooled, loop, *arguments, pool=pool) < EXACT


def test_attention_is_that_of_the_paper():
    """Ilse et al. 2018, eq. 7 and 8: weights from tanh of the features, a mean of features, and then the classifier."""
    h = np.random.default_rng(0).normal(size=(9, 4))
    head = attention(2, hidden=3)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), head.init(jax.random.key(0), h)["params"])
        params["Dense_0"]["bias"] += np.array([0.3, -0.4])
        logits = head.apply({"params": params}, h, train=True)[0]
        slot = np.array([0, 0, 0, 3, 3, 3, 6, 6, 6], np.int32)
        found = supervision.bag_logits(logits, slot, VALID, pool="attention")
    v, w, kernel = (np.asarray(params[name]["kernel"]) for name in ("Attention_0", "Attention_1", "Dense_0"))
    for first in (0, 3, 6):
        rows = [i for i in range(first, first + 3) if VALID[i]]
        e = [np.exp(sum(w[j, 0] * np.tanh(sum(h[i, f] * v[f, j] for f in range(4))) for j in range(3))) for i in rows]
        z = sum(a / sum(e) * h[i] for a, i in zip(e, rows, strict=True))
        both = z @ kernel + np.array([0.3, -0.4])
        np.testing.assert_allclose(found[first, 0], both[1] - both[0], rtol=1e-12)
    own = h @ kernel + np.array([0.3, -0.4])  # and a row's own decision is the linear head's
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], own[:, 1] - own[:, 0], rtol=1e-10)


def test_noisy_or_of_rows_that_are_surely_negative():
    """There the odds of the bag are the sum of those of its rows, which log(1 - prod(1 - p)) rounds to log 0."""
    z, slot, counted = np.array([[-60.0], [-61], [-200]]), np.zeros(3, np.int32), np.ones(3, bool)
    with jax.enable_x64(True):
        found = supervision.bag_logits(z, slot, counted, pool="noisy_or")
        around = [
            supervision.bag_logits(np.full((3, 1), float(s)), slot, counted, pool="noisy_or")[0, 0] for s in (-21, -19)
        ]
        gradient = jax.grad(lambda z: supervision.bag_logits(z, slot, counted, pool="noisy_or")[0, 0])(jnp.asarray(z))
    np.testing.assert_allclose(found[0, 0], np.log(np.exp(-60) + np.exp(-61)), rtol=1e-15)
    np.testing.assert_allclose(around, [np.log(np.expm1(3 * np.log1p(np.exp(s)))) for s in (-21, -19)], rtol=1e-9)
    np.testing.assert_allclose(gradient[:, 0], sigmoid(np.array([1.0, -1.0, -140])), rtol=1e-15, atol=1e-60)


@pytest.mark.parametrize(
    "pool,monotone",
    [("max", True), ("noisy_or", True), ("log_sum_exp", True), ("mean", False), ("linear_softmax", False)],
)
def test_adding_a_row_never_lowers_a_monotone_pool(pool, monotone):
    """P127: and the order of the rows, or rows that fill up the batch, never matter."""
    rng = np.random.default_rng(0)
    lowered = 0
    with jax.enable_x64(True):
        call = jax.jit(functools.partial(supervision.bag_logits, pool=pool))
        for _ in range(50):
            scores = rng.normal(size=(6, 1)) * rng.choice([0.1, 3, 30])
            slot, counted = np.zeros(6, np.int32), np.arange(6) < rng.integers(1, 6)
            before = call(scores, slot, counted)[0, 0]
            more = counted | (np.arange(6) == counted.sum())
            lowered += int(call(scores, slot, more)[0, 0] < before - 1e-12 * abs(before))
            order = rng.permutation(6)
            np.testing.assert_allclose(call(scores[order], slot, counted[order])[0, 0], before, rtol=1e-12)
            other = np.where(counted[:, None], scores, 1e9)
            np.testing.assert_allclose(call(other, slot, counted)[0, 0], before, rtol=1e-12)
    assert (lowered == 0) if monotone else (lowered > 10)


def test_rows_that_tie_share_the_gradient_of_the_maximum():
    z, one = np.array([[2.0], [2.0], [1.0]]), np.zeros(3, np.int32)
    gradient = jax.grad(lambda z: supervision.bag_logits(z, one, np.ones(3, bool), pool="max")[0, 0])(jnp.asarray(z))
    np.testing.assert_array_equal(gradient[:, 0], [0.5, 0.5, 0])


# Targets.


def test_errors_of_regression():
    label = np.array([[1.0, np.nan], [0.5, -2], [np.nan, np.nan], [3, 1]])
    by_row, by_entry = np.array([1.0, 2, 5, 0]), np.array([[1.0, 1], [0, 3], [1, 1], [0, 0.5]])
    for objective, of in ((squared_error, np.square), (absolute_error, lambda x: x * np.sign(x.real))):

        def loop(z, weight, of=of):
            rows = []
            for row, target, w in zip(z, label, weight, strict=True):
                known = [v * of(p - t) for p, t, v in zip(row, target, w, strict=True) if v and not np.isnan(t)]
                rows.append(sum(known) if known else None)
            return over(rows)

        z = logits_of(4, 2)
        for weight in (None, by_row, by_entry):
            each = 1.0 if weight is None else weight if weight.ndim == 2 else weight[:, None]
            bound = functools.partial(loop, weight=np.broadcast_to(each, (4, 2)))
            assert worst_error(objective, bound, z, label, weight) < EXACT
        with jax.enable_x64(True):
            np.testing.assert_allclose(objective(z[:, :1], label[:, 0]), objective(z[:, :1], label[:, :1]), rtol=0)


# What all have in common.

NOTHING = {
    "cross_entropy": (cross_entropy, {"label": np.full(4, -1, np.int32)}, {"label_smoothing": 0.1}),
    "weightless": (
        cross_entropy,
        {"label": np.zeros(4, np.int32), "weight": np.zeros(4, np.float32)},
        {"label_smoothing": 0.1},
    ),
    "margin_cross_entropy": (
        margin_cross_entropy,
        {"label": np.full(4, -1, np.int32)},
        {"margin": 1.0, "classes": (1,)},
    ),
    "soft_cross_entropy": (soft_cross_entropy, {"target": np.full((4, 2), np.nan, np.float32)}, {}),
    **{
        f"candidates_{loss}": (supervision.candidates, {"candidates": np.full((4, 2), full)}, {"loss": loss})
        for loss, full in itertools.product(("log", "exp", "mae"), (True, False))
    },
    "forward": (
        supervision.forward,
        {"label": np.full(4, -1, np.int32)},
        {"transition": ((0.9, 0.1), (0.0, 1.0)), "anchor": 0.0},
    ),
    **{
        f"unbiased_{clamp}": (
            supervision.unbiased,
            {"label": np.full(4, -1, np.int32)},
            {"transition": ((0.9, 0.1), (0.0, 1.0)), "clamp": clamp},
        )
        for clamp in ("none", "nonnegative", "ascent")
    },
    **{
        f"proportion_{divergence}_{what}": (
            supervision.proportion,
            {"bag": np.full(4, bag, np.int32), "bag_target": np.full((4, 2), target, np.float32)},
            {"divergence": divergence},
        )
        for divergence in ("kl", "count")
        for what, bag, target in (("outside", -1, 0.5), ("unknown", 0, np.nan))
    },
    **{
        f"pooled_{pool}_{what}": (
            supervision.pooled,
            {"bag": np.full(4, bag, np.int32), "bag_target": np.full((4, 2), target, np.float32)},
            {"pool": pool},
        )
        for pool in POOLS
        for what, bag, target in (("outside", -1, 1), ("unknown", 0, np.nan))
    },
    "squared_error": (squared_error, {"label": np.full((4, 2), np.nan, np.float32)}, {}),
    "absolute_error": (absolute_error, {"label": np.full((4, 2), np.nan, np.float32)}, {}),
}


@pytest.mark.parametrize("name", NOTHING)
def test_where_nothing_is_said_the_loss_and_its_gradient_are_0(name):
    objective, columns, keys = NOTHING[name]
    z = jnp.asarray(100 * logits_of(4, 2), jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(lambda z: objective(z, **columns, **keys)))(z)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


SOMETHING = {
    "cross_entropy": (cross_entropy, (np.array([0, 1, 1, -1], np.int32),), {"label_smoothing": 0.0}),
    "margin_cross_entropy": (
        margin_cross_entropy,
        (np.array([0, 1, 1, -1], np.int32),),
        {"margin": 1.0, "classes": (1,)},
    ),
    "soft_cross_entropy": (soft_cross_entropy, (np.full((4, 2), 0.5, np.float32),), {}),
    "candidates": (supervision.candidates, (np.eye(2, dtype=bool)[[0, 1, 1, 0]],), {"loss": "log"}),
    "forward": (
        supervision.forward,
        (np.array([0, 1, 1, -1], np.int32),),
        {"transition": ((0.9, 0.1), (0.0, 1.0)), "anchor": 1e-6},
    ),
    "unbiased": (
        supervision.unbiased,
        (np.array([0, 1, 1, -1], np.int32),),
        {"transition": ((0.9, 0.1), (0.0, 1.0)), "clamp": "none"},
    ),
    "positive_unlabelled": (
        supervision.positive_unlabelled,
        (np.array([1, 0, 0, 1], bool), np.full(4, 0.5, np.float32)),
        {"clamp": "nonnegative"},
    ),
    **{
        f"proportion_{divergence}": (
            supervision.proportion,
            (np.array([0, 0, 1, 1], np.int32), np.full((4, 2), 0.5, np.float32)),
            {"divergence": divergence},
        )
        for divergence in ("kl", "count")
    },
    **{
        f"pooled_{pool}": (
            supervision.pooled,
            (np.array([0, 0, 1, 1], np.int32), np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]),
            {"pool": pool},
        )
        for pool in POOLS
    },
    "squared_error": (squared_error, (np.ones((4, 2), np.float32),), {}),
    "absolute_error": (absolute_error, (np.ones((4, 2), np.float32),), {}),
}


@pytest.mark.parametrize("name", SOMETHING)
def test_sure_logits_stay_finite_and_bfloat16_is_computed_in_float32(name):
    objective, columns, keys = SOMETHING[name]
    call = jax.jit(jax.value_and_grad(lambda z: objective(z, *columns, **keys)))
    for sign in (-1, 1):
        value, gradient = call(sign * jnp.array([[90.0, -90], [-90, 90], [90, -90], [0, 0]], jnp.float32))
        assert np.isfinite(value) and np.isfinite(gradient).all()
    z = jnp.asarray(logits_of(4, 2), jnp.bfloat16)
    value, gradient = call(z)
    exact, exact_gradient = call(z.astype(jnp.float32))
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    np.testing.assert_allclose(gradient.astype(jnp.float32), exact_gradient, atol=1e-2)


def test_arguments_are_checked():
    z, label = np.zeros((4, 3), np.float32), np.zeros(4, np.int32)
    with pytest.raises(ValueError, match=r"logits must be \[\.\.\., C\] and label \[\.\.\.\], got \(4, 3\), \(3,\)"):
        cross_entropy(z, label[:3], label_smoothing=0.0)
    with pytest.raises(ValueError, match=r"weight must have the leading dimensions of \(4,\), got \(2,\)"):
        cross_entropy(z, label, np.ones(2, np.float32), label_smoothing=0.0)
    with pytest.raises(ValueError, match="loss must be one of log, exp, mae, got 'nll'"):
        supervision.candidates(z, np.ones((4, 3), bool), loss="nll")
    with pytest.raises(ValueError, match=r"transition must be \[3, 3\], got \(2, 3\)"):
        supervision.forward(z, label, transition=NOISY[:2], anchor=0.0)
    with pytest.raises(ValueError, match="each row of transition must be probabilities, from 0 up with sum 1"):
        supervision.forward(z, label, transition=((0.5, 0.4, 0.0),) * 3, anchor=0.0)
    with pytest.raises(ValueError, match=r"transition must have an inverse, but its condition number is inf"):
        supervision.unbiased(z, label, transition=((0.5, 0.5, 0.0),) * 3, clamp="none")
    with pytest.raises(ValueError, match=r"must be \[B, 1\] or \[B, 2\], got \(4, 3\)"):
        supervision.positive_unlabelled(z, label > 0, np.ones(4, np.float32), clamp="none")
    with pytest.raises(ValueError, match=r"must be \[B, 1\] or \[B, 2\], got \(4, 3\)"):
        supervision.proportion(z, label, np.ones((4, 3), np.float32), divergence="count")
    with pytest.raises(ValueError, match=r"bag and valid \[B\], got \(4, 3\), \(3,\) and \(4,\)"):
        supervision.pooled(z, label[:3], z, pool="max")
    with pytest.raises(
        ValueError,
        match="pool must be one of max, noisy_or, log_sum_exp, mean, linear_softmax, attention, got 'median'",
    ):
        supervision.pooled(z, label, z, pool="median")
    with pytest.raises(ValueError, match=r"pool = 'attention' reads two logits a row, got \(4, 3\)"):
        supervision.pooled(z, label, z, pool="attention")
    with pytest.raises(ValueError, match="attention is of two classes, whether a bag holds a row or not; the data"):
        attention(3, hidden=4)


# What they are for.


@functools.partial(jax.jit, static_argnames=("loss", "steps", "rate"))
def descend(loss, params, *columns, steps=200, rate=0.1):
    """Adam on all rows at once."""
    tx = optax.adam(rate)

    def step(carry, _):
        params, state = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(jax.grad(loss)(params, *columns), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), None, steps)[0][0]


BIASED = tuple(tuple((0.25, 0.7, 0.05)[(j - i) % 3] for j in range(3)) for i in range(3))
COMPLEMENTARY = {
    "biased": lambda w, x, given: supervision.forward(x @ w, given, transition=BIASED, anchor=1e-6),
    "uniform": lambda w, x, given: supervision.forward(x @ w, given, transition=UNIFORM, anchor=1e-6),
    "candidates": lambda w, x, given: supervision.candidates(x @ w, jnp.arange(3)[None] != given[:, None], loss="log"),
}


def test_complementary_labels_with_a_bias():
    """P17: people say that it is not y + 1, rarely y + 2, and err at times. T recovers the classes; what takes all
    wrong classes for equally likely, and no error, learns y + 2."""
    accuracy = {name: [] for name in COMPLEMENTARY}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 3, 600)
        x = np.eye(3, dtype=np.float32)[y] + rng.normal(0, 0.4, (600, 3)).astype(np.float32)
        given = ((y + rng.choice(3, 600, p=BIASED[0])) % 3).astype(np.int32)
        for name, loss in COMPLEMENTARY.items():
            w = descend(loss, jnp.zeros((3, 3)), x, given)
            accuracy[name].append(np.mean(np.argmax(x @ w, axis=1) == y))
    for ablation in ("uniform", "candidates"):
        assert_beats(np.array(accuracy["biased"]) - 0.2, accuracy[ablation])


UNBIASED = {
    "none": lambda w, x, given: supervision.unbiased(x @ w, given, transition=UNIFORM, clamp="none"),
    "nonnegative": lambda w, x, given: supervision.unbiased(x @ w, given, transition=UNIFORM, clamp="nonnegative"),
    "ascent": lambda w, x, given: supervision.unbiased(x @ w, given, transition=UNIFORM, clamp="ascent"),
}


def test_plain_ure_falls_without_bound():
    """P17: a model that can tell rows apart drives the estimate far below 0 and its true risk far up, clamped ones not.

    Accuracy says less: of linear models all three are within noise of each other.
    """
    risk = {name: [] for name in UNBIASED}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = np.arange(900) % 3
        x = rng.normal(size=(900, 30)).astype(np.float32)
        x[:, :3] += 3 * np.eye(3, dtype=np.float32)[y]
        given = ((y + rng.integers(1, 3, 900)) % 3).astype(np.int32)[:300]
        for name, loss in UNBIASED.items():
            w = descend(loss, jnp.zeros((30, 3)), x[:300], given)
            risk[name].append(cross_entropy(x[300:] @ w, y[300:].astype(np.int32), label_smoothing=0.0))
            estimate = UNBIASED["none"](w, x[:300], given)
            assert estimate < -10 if name == "none" else estimate > -2
    print({name: np.mean(each) for name, each in risk.items()})
    for clamp in ("nonnegative", "ascent"):
        assert_beats(risk["none"], 1.5 * np.array(risk[clamp]))


POOLED = {
    pool: lambda params, x, bag, target, pool=pool: supervision.pooled(
        x @ params["w"] + params["b"][None], bag, target, pool=pool
    )
    for pool in POOLS
}
BAGS = 100
POSITIVE = np.arange(BAGS) % 2  # bags


def rows_of(rng, counts, sizes, noise):
    """Bags of these sizes, [BAGS], whose first rows show concept k `counts[:, k]` times, one entry each."""
    x = rng.normal(0, noise, (sizes.sum(), counts.shape[1] + 1))
    for first, of in zip(np.cumsum(sizes) - sizes, counts, strict=True):
        x[first + np.arange(of.sum()), np.repeat(np.arange(len(of)), of)] += 3
    return x.astype(np.float32), np.repeat(np.arange(BAGS, dtype=np.int32), sizes)


def areas_of_pools(draw, noise):
    """Pool -> area under the curve of training and of test bags, five seeds [5, 2] of a linear model, by which all
    rows are negative at first: where none is, "noisy_or" begins at 1. `draw(rng, test)` gives counts and sizes."""
    found = {pool: np.empty((5, 2)) for pool in POOLS}
    target = np.stack([1 - POSITIVE, POSITIVE], 1).astype(np.float32)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        splits = [rows_of(rng, *draw(rng, test), noise) for test in (False, True)]
        x, bag = splits[0]
        for pool, loss in POOLED.items():
            params = {"w": jnp.tile(jnp.array([0.0, 0.01]), (x.shape[1], 1)), "b": jnp.array([1.5, -1.5])}
            params = jax.tree.map(np.asarray, descend(loss, params, x, bag, target[bag]))
            areas = [bag_auc(x @ params["w"] + params["b"], bag, target[bag], pool=pool)["auc"] for x, bag in splits]
            found[pool][seed] = areas
    print({pool: areas.mean(0).round(2).tolist() for pool, areas in found.items()})
    return found


def marked(concepts, test):
    """The concepts, and a marker: one in negative bags of the training, one in positive bags of the test."""
    return np.column_stack([concepts, POSITIVE if test else 1 - POSITIVE])


def one_or_both(often):
    """Positive bags show both of two concepts; negative ones the one or the other, `often` times."""
    first = np.arange(BAGS) // 2 % 2
    return np.stack([np.where(POSITIVE, 1, often * each) for each in (first, 1 - first)], 1)


def test_linear_softmax_raises_the_rows_that_a_bag_is_positive_for():
    """P159: of a positive bag three rows of ten stand out a little. The probability has the slope (2 s - p) / sum s in
    a row's s: these three are found, where the mean finds all ten and "max" but one."""
    slot, target = np.zeros(10, np.int32), np.ones((10, 1))
    start = np.where(np.arange(10) < 3, 0.1, -1.5)[:, None] + np.linspace(0.2, 0, 10)[:, None]
    found = {}
    with jax.enable_x64(True):
        for pool in ("linear_softmax", "mean", "max"):
            loss = functools.partial(supervision.pooled, bag=slot, bag_target=target, pool=pool)
            slope, z = jax.jit(jax.grad(loss)), jnp.asarray(start)
            for _ in range(20):
                z -= slope(z)
            found[pool] = np.flatnonzero((np.asarray(z) > start)[:, 0]).tolist()
        logit = functools.partial(supervision.bag_logits, slot=slot, counted=np.ones(10, bool), pool="linear_softmax")
        slope = np.asarray(jax.grad(lambda z: jax.nn.sigmoid(logit(z)[0, 0]))(jnp.asarray(start)))
    s = sigmoid(start)
    p = (s**2).sum() / s.sum()
    np.testing.assert_allclose(slope, (2 * s - p) / s.sum() * s * (1 - s), rtol=1e-12)
    assert found == {"linear_softmax": [0, 1, 2], "mean": list(range(10)), "max": [0]}


@pytest.mark.slow
def test_poisoned_bags():
    """P127: what speaks against a bag in training is in the positive bags of the test; a monotone pool ignores it."""
    areas = areas_of_pools(lambda rng, test: (marked(POSITIVE, test), np.full(BAGS, 8)), noise=0.3)
    assert min(each[:, 0].min() for each in areas.values()) > 0.99
    for pool in ("max", "noisy_or", "log_sum_exp"):
        assert areas[pool][:, 1].min() > 0.95
        for ablation, margin in (("mean", 0.2), ("attention", 0.0)):  # of one seed attention may find the concept
            assert_beats(areas[pool][:, 1] - margin, areas[ablation][:, 1])


@pytest.mark.slow
def test_bags_that_need_two_concepts():
    """P127: two concepts are needed, and the marker is easier to see. What monotone pools can learn of that holds in
    the test: of two bags of a kind "max" orders three quarters; the others have learnt the marker."""
    areas = areas_of_pools(lambda rng, test: (marked(one_or_both(1), test), np.full(BAGS, 8)), noise=0.1)
    for pool in ("max", "noisy_or", "log_sum_exp"):
        assert areas[pool].min() > 0.65
        for ablation in ("mean", "attention"):
            assert areas[ablation][:, 0].min() > 0.99
            assert_beats(areas[pool][:, 1] - 0.1, areas[ablation][:, 1])


@pytest.mark.slow
def test_bags_above_a_threshold():
    """P127: of bags of all sizes those are positive that show a concept in four rows or more, and not in one or two:
    "log_sum_exp" and "noisy_or" count, "max" cannot, and the others have learnt the marker."""

    def draw(rng, test):
        counts = np.where(POSITIVE, rng.integers(4, 6, BAGS), rng.integers(1, 3, BAGS))
        return marked(counts, test), rng.permutation(6 + np.arange(BAGS) % 10)

    areas = areas_of_pools(draw, noise=0.1)
    for ablation in ("max", "mean", "attention"):
        assert_beats(areas["noisy_or"][:, 1] - 0.05, areas[ablation][:, 1])
    assert areas["log_sum_exp"][:, 1].mean() > 0.85
    for ablation in ("mean", "attention"):
        assert areas[ablation][:, 0].min() > 0.99


def test_one_concept_often_is_not_two():
    """P127, false frequency: each concept is there once in training, the one of a negative bag six times in the test.
    No pool of one logit a row tells that from both, as its docstring says."""
    areas = areas_of_pools(lambda rng, test: (one_or_both(6 if test else 1), np.full(BAGS, 8)), noise=0.1)
    for pool, each in areas.items():
        assert each[:, 0].min() > 0.65 and each[:, 1].max() < (0.65 if pool in ("max", "noisy_or") else 0.55)


def sar_e(w, x, observed, propensity):
    return supervision.positive_unlabelled(x @ w, observed, propensity, clamp="none")


def test_known_propensities():
    """P152: positives are observed by another feature than makes them so; 1 / e undoes that, one e for all does not."""
    accuracy = {"known": [], "constant": [], "naive": []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(4000, 2))
        x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
        y = rng.random(4000) < sigmoid(3 * x[:, 0])
        e = sigmoid(2.5 * x[:, 1] - 0.5)
        observed = y & (rng.random(4000) < e)
        rows = np.concatenate([x, np.ones((4000, 1))], axis=1).astype(np.float32)
        propensities = {"known": e, "constant": np.full(4000, observed.sum() / y.sum()), "naive": np.ones(4000)}
        for name, propensity in propensities.items():
            w = descend(sar_e, jnp.zeros((3, 1)), rows, observed, propensity.astype(np.float32))
            accuracy[name].append(np.mean((rows @ w)[:, 0] * x[:, 0] > 0))
    print({name: np.mean(each) for name, each in accuracy.items()})
    assert np.mean(accuracy["known"]) > 0.93
    assert_beats(np.array(accuracy["known"]) - 0.1, accuracy["naive"])
    assert_beats(np.array(accuracy["known"]) - 0.05, accuracy["constant"])
