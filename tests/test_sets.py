"""Sets with a promise: thresholds against the laws of order statistics, sets against enumeration."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from labelfx.evals.sets import GRID, conformal, first_thresholds, hierarchy, label_set_conformal
from labelfx.labels.sets import conformal_threshold, coverage_law, hierarchical_set, pac_threshold, power_set

TREE = np.array([6, 6, 7, 7, 8, 8, 9, 9, 10, 10, -1])  # six leaves; 9 holds 6 and 7, the root 10 holds 8 and 9


def test_coverage_has_the_beta_binomial_law():
    """Of 2,000 draws of 100 calibration rows; the plain quantile (ablation) misses the promise on average."""
    rng = np.random.default_rng(0)
    calibration, judged = rng.normal(size=(2000, 100)), rng.normal(size=(2000, 200))
    cuts = np.array([conformal_threshold(each, error=0.1) for each in calibration])
    coverage = np.mean(judged <= cuts[:, None], 1)
    mean, deviation = coverage_law(100, 200, 0.1)
    assert abs(mean - 91 / 101) < 1e-12 and abs(coverage.mean() - mean) < 4 * deviation / np.sqrt(2000)
    assert abs(coverage.std() / deviation - 1) < 0.07
    plain = np.mean(judged <= np.quantile(calibration, 0.9, axis=1, method="inverted_cdf")[:, None], 1)
    assert plain.mean() < 0.9 - 4 * deviation / np.sqrt(2000)
    assert conformal_threshold(calibration[0, :8], error=0.1) == np.inf


def test_a_pac_threshold_seldom_breaks_its_promise_and_a_quantile_does_half_the_time():
    rng = np.random.default_rng(0)
    scores = rng.random((2000, 300))
    wrong = np.array([1 - pac_threshold(each, error=0.1, delta=0.05) for each in scores])
    quantile = np.array([1 - conformal_threshold(each, error=0.1) for each in scores])
    assert np.mean(wrong > 0.1) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000) and 0.35 < np.mean(quantile > 0.1) < 0.55
    allowed = np.sum(scores[0] > pac_threshold(scores[0], error=0.1, delta=0.05))
    assert allowed == 21 == max(k for k in range(300) if binom.cdf(k, 300, 0.1) <= 0.05)
    assert pac_threshold(scores[0, :29], error=0.1, delta=0.05) == scores[0, :29].max()
    with pytest.raises(ValueError, match="28 calibration rows: error = 0.1, delta = 0.05 needs 29 at least"):
        pac_threshold(scores[0, :28], error=0.1, delta=0.05)


def leaves_of(node):
    below = np.flatnonzero(TREE == node)
    return {node} if not len(below) else set().union(*map(leaves_of, below))


@pytest.mark.parametrize("most", [1, 2, 3])
def test_sets_of_nodes_are_those_of_enumeration(most):
    rng = np.random.default_rng(most)
    for _ in range(20):
        probs = np.concatenate([rng.dirichlet(np.ones(6)), np.zeros(5)])
        threshold = rng.random()
        nodes, held = hierarchical_set(probs, TREE, threshold, most=most)
        inside = [leaves_of(node) for node in nodes]
        assert len(set().union(*inside)) == sum(map(len, inside)) and len(nodes) <= most
        np.testing.assert_allclose(held, sum(probs[leaf] for each in inside for leaf in each))
        sizes = []
        for count in range(1, most + 1):
            for chosen in itertools.combinations(range(11), count):
                union = set().union(*map(leaves_of, chosen))
                if sum(probs[leaf] for leaf in union) >= threshold:
                    sizes.append((len(union), -sum(probs[leaf] for leaf in union)))
        np.testing.assert_allclose((sum(map(len, inside)), -held), min(sizes))


def test_a_tree_is_a_tree():
    with pytest.raises(ValueError, match="-1 of one root, which 0 have"):
        hierarchical_set(np.ones(2), np.array([1, 0]), 0.5, most=1)
    with pytest.raises(ValueError, match="parent has a cycle: node 1 has no way up"):
        hierarchical_set(np.ones(3), np.array([-1, 2, 1]), 0.5, most=1)


def test_first_thresholds_nest():
    probs = np.random.default_rng(0).dirichlet(np.ones(6), 5)
    for row in probs:
        first = first_thresholds(row, TREE, most=2)
        assert first.min() == GRID[0] and all(row[first <= each].sum() >= each - 1e-9 for each in GRID)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_label_sets_are_those_of_enumeration(power):
    rng = np.random.default_rng(0)
    every = np.array(list(itertools.product([False, True], repeat=9)))
    for _ in range(10):
        probs = rng.random(9)
        costs = np.sum(np.abs(every - probs) ** power, 1)
        threshold = np.quantile(costs, rng.uniform(0, 0.5))
        sets, totals, more = power_set(probs, threshold, power=power, most=512)
        assert not more and {*map(tuple, sets)} == {*map(tuple, every[costs <= threshold])}
        np.testing.assert_allclose(totals, np.sort(costs)[: len(sets)])
        short, _, more = power_set(probs, threshold, power=power, most=3)
        assert more == (len(sets) > 3) and np.array_equal(short, sets[:3])
    assert not len(power_set(np.full(9, 0.4), 0.1, power=1.0, most=5)[0])


def noisy_scores(seed, rows=2000, classes=6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows).astype(np.int32)
    return (2 * np.eye(classes)[labels] + rng.normal(size=(rows, classes))).astype(np.float32), labels


def test_classes_are_covered_as_promised():
    logits, labels = noisy_scores(0)
    found = conformal(logits, labels, 0, error=0.1, holdout=0.5, repeats=100)
    assert abs(found["coverage"] - found["law_mean"]) < 4 * found["law_std"] / np.sqrt(100)
    assert abs(found["coverage_std"] / found["law_std"] - 1) < 0.3
    assert found["n"] == found["n_calibration"] == 1000 and 1 < found["mean_set_size"] < 3
    assert conformal(logits, labels, 0, error=0.01, holdout=0.5, repeats=9)["mean_set_size"] > found["mean_set_size"]
    with pytest.raises(ValueError, match="leaves 0 to calibrate with"):
        conformal(logits, labels, 0, error=0.1, holdout=0.0, repeats=1)


def test_label_sets_are_covered_where_single_thresholds_are_not():
    rng = np.random.default_rng(0)
    labels = (rng.random((1500, 8)) < 0.3).astype(np.int8)
    logits = (3 * labels - 1.5 + rng.normal(size=labels.shape)).astype(np.float32)
    settings = {"holdout": 0.5, "power": 2.0, "most_sets": 300}
    for error in (0.1, 0.2):
        found = label_set_conformal(logits, labels, 0, error=error, **settings)
        mean, deviation = coverage_law(750, 750, error)
        assert abs(found["coverage"] - mean) < 4 * deviation and found["mean_sets"] >= 1
        assert found["thresholded_coverage"] < 0.7


def test_sets_over_a_hierarchy_are_covered():
    logits, labels = noisy_scores(1, rows=400)
    how = {"parent": tuple(TREE), "error": 0.1, "holdout": 0.5, "most": 2}
    found, surer = (hierarchy(logits, labels, 0, delta=delta, **how) for delta in (0.05, 1e-6))
    assert found["coverage"] >= 0.9 and 1 <= found["mean_set_size"] < surer["mean_set_size"] < 6
    with pytest.raises(ValueError, match="must have the 6 classes as its leaves"):
        hierarchy(logits, labels, 0, parent=(2, 2, -1), error=0.1, delta=0.05, holdout=0.5, most=2)
