"""Noise of labels: its estimate's error against draws, Bayes' rule by enumeration, and which rows it leaves open."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from toys import adam, assert_beats

from labelfx.labels import noise
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.supervision import forward

NOISY = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.0, 0.7]])


def drawn(rng, true, transition=NOISY):
    return (transition[true].cumsum(1) <= rng.random((len(true), 1))).sum(1)


def test_the_expected_error_is_that_of_draws():
    """P160: of a fixed number of pairs, and of pairs from all rows, of which a class may have all or none."""
    rng = np.random.default_rng(0)
    counts = np.array([5, 10, 20])
    true, errors = np.repeat(np.arange(3), counts), []
    for _ in range(3000):
        found = noise.count_transitions(drawn(rng, true), true, 3, smoothing=0.0)
        errors.append(((found - NOISY) ** 2).sum())
    expected = noise.expected_squared_error(NOISY, counts=counts)
    assert abs(np.mean(errors) - expected) < 4 * np.std(errors) / np.sqrt(3000)

    prior, errors = np.array([0.9, 0.06, 0.04]), []
    for _ in range(6000):
        true = rng.choice(3, 20, p=prior)
        given = drawn(rng, true)
        per_class = [((np.bincount(given[true == c], minlength=3) / max(1, (true == c).sum()) - NOISY[c]) ** 2).sum()
                     for c in range(3) if (true == c).any()]  # fmt: skip
        errors.append(sum(per_class))
    expected = noise.expected_squared_error(NOISY, total=20, prior=prior)
    assert abs(np.mean(errors) - expected) < 4 * np.std(errors) / np.sqrt(6000)
    with pytest.raises(ValueError, match=r"counts = \[0, 1, 2\]: of each class there must be a pair"):
        noise.expected_squared_error(NOISY, counts=np.arange(3))
    with pytest.raises(ValueError, match="take counts of each class, or the total"):
        noise.expected_squared_error(NOISY)


def test_transitions_of_anchors_and_of_pairs():
    probs = np.vstack([NOISY, np.full((7, 3), 1 / 3)])  # rows that are surely of a class, by a network of given labels
    np.testing.assert_allclose(noise.anchor_transitions(probs, quantile=1.0), NOISY)
    found = noise.count_transitions(np.array([0, 1, 1]), np.array([0, 0, 1]), 2, smoothing=0.0)
    np.testing.assert_array_equal(found, [[0.5, 0.5], [0, 1]])
    smooth = noise.count_transitions(np.array([0, 1, 1]), np.array([0, 0, 1]), 3, smoothing=1.0)
    np.testing.assert_allclose(smooth[[0, 2]], [[0.4, 0.4, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    with pytest.raises(ValueError, match="class 2 is in no pair of a given and a true label: add a smoothing"):
        noise.count_transitions(np.array([0, 1, 1]), np.array([0, 0, 1]), 3, smoothing=0.0)


def test_the_posterior_is_that_of_enumeration():
    prior, given = np.random.default_rng(1).dirichlet(np.ones(3), 6), np.array([0, 1, 2, 0, 1, 2])
    found = noise.posterior(prior, NOISY, given)
    for row in range(6):
        joint = [prior[row, i] * NOISY[i, given[row]] for i in range(3)]
        np.testing.assert_allclose(found[row], joint / np.sum(joint))
    np.testing.assert_allclose(
        noise.posterior(np.array([0.2, 0.3, 0.5]), np.full((3, 3), 1 / 3), given)[4], [0.2, 0.3, 0.5]
    )
    np.testing.assert_allclose(noise.true_shares(prior[0] @ NOISY, NOISY), prior[0])
    with pytest.raises(ValueError, match="row 0 is called 1, which by the transition no class that it may have is"):
        noise.posterior(np.array([0.0, 0.0, 1.0]), NOISY, np.array([1]))


def problem(seed, n, transition):
    """Rows of three overlapping classes: (x with a column of 1, true class, label given)."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, n)
    angle = 2 * np.pi * true / 3
    x = np.stack([2 * np.cos(angle), 2 * np.sin(angle), np.zeros(n)], 1) + rng.normal(size=(n, 3))
    x[:, 2] = 1
    return x.astype(np.float32), true.astype(np.int32), drawn(rng, true, transition).astype(np.int32)


def accuracy(loss, seed, transition):
    """Of a linear classifier that has gone down a loss of the labels given."""
    tx, (x, _, given), (x_test, true, _) = (
        adam(0.1),
        problem(seed, 600, transition),
        problem(seed + 50, 3000, transition),
    )

    @jax.jit
    def fit(x, given):
        def step(carry, _):
            kernel, moments = carry
            updates, moments = tx.update(jax.grad(lambda kernel: loss(x @ kernel, given))(kernel), moments)
            return (kernel + updates, moments), None

        return jax.lax.scan(step, (jnp.zeros((3, 3)), tx.init(jnp.zeros((3, 3)))), None, 150)[0][0]

    return np.mean((x_test @ np.asarray(fit(x, given))).argmax(1) == true)


@pytest.mark.slow
def test_a_transition_of_few_pairs_is_worth_less_and_none_least():
    """P160: half of one class is called another, so that cross-entropy learns to call it so."""
    transition = np.array([[0.45, 0.55, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = {"cross-entropy": [], 5: [], 50: [], "known": []}
    for seed in range(5):
        found["cross-entropy"].append(accuracy(functools.partial(cross_entropy, label_smoothing=0.0), seed, transition))
        for pairs in (5, 50, "known"):
            true = np.repeat(np.arange(3), pairs) if pairs != "known" else None
            rng = np.random.default_rng(seed)
            counted = transition if true is None else noise.count_transitions(
                drawn(rng, true, transition), true, 3, smoothing=0.0)  # fmt: skip
            matrix = tuple(map(tuple, counted.tolist()))
            loss = functools.partial(forward, transition=matrix, anchor=1e-6)
            found[pairs].append(accuracy(loss, seed, transition))
    print({name: np.round(np.mean(each), 3) for name, each in found.items()})
    assert_beats(found["known"], found["cross-entropy"])
    assert_beats(found[50], found["cross-entropy"])
    assert np.mean(found[5]) < np.mean(found["known"])


def test_plausible_labels_are_typical():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 400)
    given = drawn(rng, true)
    chance = noise.posterior(np.full(3, 1 / 3), NOISY, given)
    found = noise.plausible_labels(rng, chance, given, draws=50, typical=0.1)
    flips, expected = (found != given).mean(1), 1 - chance[np.arange(400), given].mean()
    assert found.shape == (50, 400) and found.dtype == given.dtype
    assert (abs(flips - expected) <= 0.1 * expected).all() and abs(flips.mean() - expected) < 0.01
    for j in range(3):
        shares = np.bincount(found[:, given == j].ravel(), minlength=3) / found[:, given == j].size
        np.testing.assert_allclose(shares, chance[given == j][0], atol=0.02)
    with pytest.raises(ValueError, match=r"typical = 0.0: \d+ of 200 draws are; take a larger one"):
        noise.plausible_labels(rng, chance, given, draws=2, typical=0.0)


def test_mistakes_that_a_given_label_does_not_foretell():
    predictions, given, true = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0, 0, 0, 0])
    np.testing.assert_array_equal(noise.regret(predictions, given, true), [0, 1, 0, 1])
    np.testing.assert_array_equal(noise.regret(predictions[None], given, np.stack([true, given])), [0, 0.5, 0, 0.5])
    np.testing.assert_array_equal(noise.ambiguity(np.stack([predictions, given]), true), [0, 0.5, 0.5, 1])


def test_rows_in_doubt_are_told_by_plausible_labels_and_not_by_one_network():
    """P213: one group has noisy labels, the other none, and the classes overlap in both alike."""
    of_draws, of_one = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        group, true = np.arange(300) % 2, rng.integers(0, 2, 300)
        x = np.stack([(2 * true - 1) * 1.5 + rng.normal(size=300), group - 0.5], 1)
        chance = np.zeros((300, 2))
        given = np.where(group & (rng.random(300) < 0.4), 1 - true, true)
        for g, rate in enumerate((0.0, 0.4)):
            transition = np.array([[1 - rate, rate], [rate, 1 - rate]])
            chance[group == g] = noise.posterior(np.full(2, 0.5), transition, given[group == g])
        labels = noise.plausible_labels(rng, chance, given, draws=20, typical=0.5)
        networks = [LogisticRegression().fit(x, label) for label in labels]
        doubt = noise.ambiguity(np.stack([network.predict(x) for network in networks]), labels)
        of_draws.append(roc_auc_score(group, doubt))
        of_one.append(roc_auc_score(group, -LogisticRegression().fit(x, given).predict_proba(x).max(1)))
    print(np.round(np.mean(of_draws), 3), np.round(np.mean(of_one), 3))
    assert min(of_draws) > 0.9
    assert_beats(np.array(of_draws) - 0.2, of_one)
