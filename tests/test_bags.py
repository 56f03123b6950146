"""Belief propagation in bags with counts against enumeration in float64, and what bags and likeness are worth
together."""

import itertools

import numpy as np
import pytest
from toys import assert_beats

from labelfx.labels.bags import belief_propagation
from labelfx.labels.evidence import Evidence
from labelfx.labels.rules import proportion_bp

RNG = np.random.default_rng(0)
BAG = np.array([0, 0, 0, 1, 1, 1, -1, 0, 1, 0])
COUNT = np.array([2, 1])
TREE = np.array([[6, 0]])  # with the bags there is no circle: messages are exact
RULE = {"covariates": "inputs", "neighbours": 5, "steps": 40, "damping": 0.5}


def enumerated(edges, similarity, bag_weight, similarity_weight):
    total, above = 0.0, np.zeros(len(BAG))
    for y in itertools.product((0, 1), repeat=len(BAG)):
        energy = sum((sum(np.array(y)[BAG == k]) - COUNT[k]) ** 2 for k in (0, 1)) * bag_weight
        energy += sum(similarity_weight * s for (i, j), s in zip(edges, similarity, strict=True) if y[i] != y[j])
        total += np.exp(-energy)
        above += np.exp(-energy) * np.array(y)
    return above / total


def propagate(edges=TREE, similarity=(0.7,), bag=BAG, count=COUNT, **how):
    how = {"bag_weight": 1.0, "similarity_weight": 2.0, "steps": 100, "damping": 0.5} | how
    return belief_propagation(bag, np.asarray(count), np.asarray(edges), np.asarray(similarity), **how)


@pytest.mark.parametrize("bag_weight", [0.2, 3.0, 10.0])
def test_a_count_factor_is_exact_and_pairs_are_not(bag_weight):
    """P18: in the distribution itself, where no message goes in a circle but within a bag."""
    exact = enumerated(TREE, [0.7], bag_weight, 2.0)
    np.testing.assert_allclose(propagate(bag_weight=bag_weight), exact, atol=1e-12)
    far = np.abs(propagate(bag_weight=bag_weight, bag_factor="pairs") - exact).max()
    assert far < 0.01 if bag_weight == 0.2 else far > 0.1


def test_pairs_alone_and_weak_circles_are_those_of_enumeration():
    edges, similarity = np.array([[0, 3], [3, 6], [0, 6], [8, 9]]), np.array([0.2, 0.1, 0.3, 0.5])
    for factor in ("count", "pairs"):
        found = propagate(edges, similarity, bag_weight=0.05, similarity_weight=0.5, bag_factor=factor)
        np.testing.assert_allclose(found, enumerated(edges, similarity, 0.05, 0.5), atol=1e-3)


def clusters(seed, size=8, bags=25):
    """Two clusters in bags with counts: evidence, and the truth."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, size * bags)
    x = (rng.normal(size=(len(y), 4)) + 4 * y[:, None] - 2).astype(np.float32)
    bag = np.arange(len(y)) // size
    share = np.array([y[bag == k].mean() for k in range(bags)])[bag]
    nothing = np.zeros((len(y), 0), np.float32)
    columns = {"label": np.full(len(y), -1, np.int32), "bag": bag, "bag_target": np.stack([1 - share, share], 1)}
    empty = np.empty(0, np.int64)
    return Evidence(nothing, nothing, np.full(len(y), np.nan), columns, empty, 0.0, inputs=x), y


def test_bags_and_likeness_together_say_what_neither_says():
    """P18: counts alone give the rows of a bag one number, likeness alone tells two clusters apart but not which."""
    found = {"both": [], "bags": [], "likeness": []}
    for seed in range(4):
        evidence, y = clusters(seed)
        for name, weights in (("both", (10.0, 1.0)), ("bags", (10.0, 0.0)), ("likeness", (0.0, 1.0))):
            target = proportion_bp(evidence, RNG, bag_weight=weights[0], similarity_weight=weights[1], **RULE)["target"]
            found[name].append(np.mean((target[:, 1] > 0.5) == y))
    print({name: np.round(np.mean(each), 3) for name, each in found.items()})
    assert min(found["both"]) > 0.95
    for name in ("bags", "likeness"):
        assert_beats(np.array(found["both"]) - 0.2, found[name])


def test_rows_in_no_bag_are_left_out_and_labels_stay():
    evidence, _ = clusters(0)
    columns = evidence.columns
    columns["bag"][:8], columns["bag_target"][8:16], columns["label"][8] = -1, np.nan, 1
    taught = proportion_bp(evidence, RNG, bag_weight=1.0, similarity_weight=4.0, **RULE)
    assert taught["weight"].tolist() == [0] * 8 + [1] + [0] * 7 + [1] * 184
    assert taught["target"][8].tolist() == [0, 1] and taught["pinned"].sum() == 1
    np.testing.assert_allclose(taught["target"][16:].sum(1), 1, rtol=1e-6)
    columns["bag_target"][:] = [1, 0]
    with pytest.raises(ValueError, match=r"classes have shares \[1.0, 0.0\] of the rows in bags"):
        proportion_bp(evidence, RNG, bag_weight=1.0, similarity_weight=4.0, **RULE)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"count": (2, 6)}, r"count of bag 1 is 6; allowed 0\.\.4, its rows"),
        ({"count": (2, 1, 0)}, r"bags must be numbered 0\.\.2, each with rows, got sizes \[5, 4, 0\]"),
        ({"edges": [[0, 0]]}, r"edges must be pairs of two different rows of 0\.\.9"),
        ({"edges": [[0, 1], [1, 0]], "similarity": (1, 1)}, "edges name a pair twice"),
        ({"bag_factor": "square"}, "bag_factor must be one of count, pairs, got 'square'"),
    ],
)
def test_what_cannot_be_is_named(keys, message):
    with pytest.raises(ValueError, match=message):
        propagate(**keys)
