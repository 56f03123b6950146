"""Label models of votes against loops in float64, and what coverage and one accurate function are worth."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from derivatives import complex_gradient
from toys import assert_beats

from labelfx.labels import votes as voting
from labelfx.labels.votes import LabelModel, fit_label_model, lf_summary, majority_vote, predict_proba

EXACT = 1e-10
VOTES = np.array([[0, 1, -1, 0], [2, 2, 0, -1], [-1, -1, -1, -1], [1, 0, 1, 1], [-1, 2, -1, -1], [0, 0, 2, 2]])
ACCURACIES = np.array([0.9, 0.55, 0.5, 0.5, 0.5])


def drawn(seed, count=1500):
    """Truth, and votes of five functions of three classes, each on four rows of five: one of them is good."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    other = (y[:, None] + rng.integers(1, 3, (count, 5))) % 3
    votes = np.where(rng.random((count, 5)) < ACCURACIES, y[:, None], other)
    return y, np.where(rng.random((count, 5)) < 0.8, votes, -1)


def one_polarity(votes):
    """The same votes of three times as many functions, which name one class each."""
    return np.where(votes[:, :, None] == np.arange(3), np.arange(3), -1).reshape(len(votes), -1)


def right(probs, y):
    """Accuracy, with ties shared."""
    best = probs > probs.max(1, keepdims=True) - 1e-9
    return np.mean(best[np.arange(len(y)), y] / best.sum(1))


def test_majority():
    expected = [[1, 0, 0], [0, 0, 1], [1 / 3] * 3, [0, 1, 0], [0, 0, 1], [0.5, 0, 0.5]]
    np.testing.assert_allclose(majority_vote(VOTES, 3), expected)


def loop_misfit(joint, votes, prior, start, l2):
    """Of the moments [M, C, C], by enumeration of functions and classes."""
    functions, classes = joint.shape[:2]
    total = 0
    for m, a in itertools.product(range(functions), range(classes)):
        total += (sum(joint[m, a, y] * prior[y] for y in range(classes)) - np.mean(votes[:, m] == a)) ** 2
        for n, b in itertools.product(range(functions), range(classes)):
            if n != m:
                seen = np.mean((votes[:, m] == a) & (votes[:, n] == b))
                total += (sum(prior[y] * joint[m, a, y] * joint[n, b, y] for y in range(classes)) - seen) ** 2
    return total + l2 * ((joint - start) ** 2).sum()


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_moments(l2, monkeypatch):
    """What is minimised and its slope, at the start and at the end; there no move within the bounds is downhill."""
    prior, kept = np.array([0.5, 0.3, 0.2]), {}
    minimize = scipy.optimize.minimize

    def recorded(fun, x0, **keys):
        kept.update(fun=fun, x0=x0, bounds=keys["bounds"])
        return minimize(fun, x0, **keys)

    monkeypatch.setattr(scipy.optimize, "minimize", recorded)
    model = fit_label_model(VOTES, 3, method="moments", class_balance=prior, l2=l2, steps=500)
    shape = model.joint.shape
    start = np.zeros(shape)
    for m, a, y in np.ndindex(shape):
        start[m, a, y] = np.mean(VOTES[:, m] == a) * (0.7 if a == y else 0.15) / prior[y]
    for flat in (kept["x0"], model.joint.ravel()):
        value, slope = kept["fun"](flat)
        joint = flat.reshape(shape)
        np.testing.assert_allclose(value, loop_misfit(joint, VOTES, prior, start, l2), rtol=EXACT, atol=1e-14)
        expected = complex_gradient(lambda joint: loop_misfit(joint, VOTES, prior, start, l2), joint)
        np.testing.assert_allclose(slope, expected.ravel(), rtol=EXACT, atol=1e-12)
    low, high = kept["bounds"].lb, kept["bounds"].ub
    flat = model.joint.ravel()
    free = (flat > low + 1e-9) & (flat < high - 1e-9)
    assert np.abs(slope[free]).max() < 1e-4
    assert (slope[(flat <= low + 1e-9) & (high > low)] > -1e-4).all()


def test_posterior():
    model = fit_label_model(VOTES, 3, method="moments", class_balance=np.array([0.5, 0.3, 0.2]), l2=0.5, steps=50)
    for row, probs in zip(VOTES, predict_proba(model, VOTES), strict=True):
        p = model.prior.copy()
        for m, vote in enumerate(row):
            if vote >= 0:
                p *= model.joint[m, vote]
        np.testing.assert_allclose(probs, p / p.sum(), rtol=EXACT)
    never = LabelModel(model.prior, model.joint * (np.arange(4) != 3)[:, None, None])  # function 3 has cast no vote
    np.testing.assert_allclose(predict_proba(never, np.array([[-1, -1, -1, 1]]))[0], model.prior, rtol=EXACT)


def test_one_coin():
    """A fixed point of expectation maximisation, by loops."""
    model = fit_label_model(VOTES, 3, method="one_coin", l2=0.0, steps=500)
    probs = predict_proba(model, VOTES)
    for m in range(4):
        cast = VOTES[:, m] >= 0
        accuracy = (7 + sum(probs[i, VOTES[i, m]] for i in np.flatnonzero(cast))) / (10 + cast.sum())
        expected = np.full((3, 3), (1 - accuracy) / 2)
        np.fill_diagonal(expected, accuracy)
        np.testing.assert_allclose(model.joint[m], cast.mean() * expected, rtol=1e-7)


def test_summary():
    y = np.array([0, 2, 1, 1, -1, 0])
    found = lf_summary(VOTES, y)
    assert found["polarity"] == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    for m in range(4):
        cast = [i for i in range(6) if VOTES[i, m] >= 0]
        others = {i: [VOTES[i, n] for n in range(4) if n != m and VOTES[i, n] >= 0] for i in cast}
        assert found["coverage"][m] == len(cast) / 6
        assert found["overlaps"][m] == sum(bool(others[i]) for i in cast) / 6
        assert found["conflicts"][m] == sum(any(each != VOTES[i, m] for each in others[i]) for i in cast) / 6
        known = [i for i in cast if y[i] >= 0]
        assert found["accuracy"][m] == np.mean([VOTES[i, m] == y[i] for i in known])
    assert np.isnan(lf_summary(VOTES)["accuracy"]).all()
    assert lf_summary(one_polarity(VOTES))["polarity"] == [[c] for c in (0, 1, 2) * 4]


def test_a_good_function_counts_more_than_many_poor_ones():
    """P220: majority takes all votes for equally good. Of functions that name one class each the joint with coverage
    finds as much, and accuracies given that a function votes find nothing: each seems to be right always or never."""
    found = {"majority": [], "moments": [], "one polarity": [], "given a vote": []}
    for seed in range(5):
        y, votes = drawn(seed)
        single = one_polarity(votes)
        keys = {"l2": 0.0, "steps": 60}
        found["majority"].append(right(majority_vote(votes, 3), y))
        for name, cast, method in (
            ("moments", votes, "moments"),
            ("one polarity", single, "moments"),
            ("given a vote", single, "one_coin"),
        ):
            found[name].append(right(predict_proba(fit_label_model(cast, 3, method=method, **keys), cast), y))
    print({name: np.round(np.mean(each), 3) for name, each in found.items()})
    for name in ("moments", "one polarity"):
        assert_beats(np.array(found[name]) - 0.08, found["majority"])
        assert_beats(np.array(found[name]) - 0.3, found["given a vote"])


def test_a_rare_vote_keeps_its_odds():
    """P220: what a vote is worth does not hang on how often the function votes, as it does where the joint is clipped
    to 0.01 at least."""
    prior = np.full(2, 0.5)
    often = LabelModel(prior, np.array([[[0.5, 0.1], [0.1, 0.5]]]))
    rarely = LabelModel(prior, often.joint / 50)
    vote = np.array([[0]])
    np.testing.assert_allclose(predict_proba(rarely, vote), predict_proba(often, vote), rtol=EXACT)
    clipped = LabelModel(prior, rarely.joint.clip(0.01, 0.99))
    assert predict_proba(often, vote)[0, 0] - predict_proba(clipped, vote)[0, 0] > 0.3


def test_an_observer_drawn_at_random_is_the_soft_label_in_the_mean():
    """P133: exactly, over all that may be drawn."""
    votes = np.repeat(VOTES, 20_000, 0)
    uniform = type("Grid", (), {"random": lambda self, n: np.tile((np.arange(20_000) + 0.5) / 20_000, len(VOTES))})()
    drawn = voting.sample(uniform, votes, 3, consensus=0.4).reshape(len(VOTES), -1)
    for row, labels in zip(VOTES, drawn, strict=True):
        cast = row[row >= 0]
        if not len(cast):
            assert (labels == -1).all()
            continue
        count = np.bincount(cast, minlength=3)
        expected = 0.4 * (count == count.max()) / (count == count.max()).sum() + 0.6 * count / len(cast)
        np.testing.assert_allclose(np.bincount(labels, minlength=3) / 20_000, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("votes", "keys", "message"),
    [
        (VOTES[:, :2], {}, "votes of 2 functions: a label model needs 3 or more"),
        (VOTES + 1, {}, r"votes lie in 0\.\.3; allowed -1\.\.2"),
        (VOTES[0], {}, r"votes must be \[N, M\]"),
        (VOTES, {"class_balance": np.array([1.0, 0, 0])}, "class_balance = .*: must be 3 probabilities above 0"),
        (VOTES, {"method": "snorkel"}, "method must be one of moments, one_coin, got 'snorkel'"),
    ],
)
def test_what_cannot_be_fitted_is_named(votes, keys, message):
    with pytest.raises(ValueError, match=message):
        fit_label_model(np.atleast_1d(votes), 3, **({"method": "moments", "l2": 0.0, "steps": 5} | keys))
