"""Relations of labels, what follows from them, and trees of labels that go together."""

import itertools
import math

import numpy as np
import pytest

from labelfx.labels.hierarchy import LabelTree
from labelfx.labels.label_space import close, relations

HOW = {"expected": 5.0, "share": 0.9}


def planted(seed, independent=50):
    """Two labels that are one, one within another and two that exclude each other, among independent ones."""
    rng = np.random.default_rng(seed)
    a, c = rng.random((2, 200)) < 0.3
    outer = c | (rng.random(200) < 0.4)
    one = rng.random(200) < 0.4
    other = ~one & (rng.random(200) < 0.6)
    rest = rng.random((200, independent)) < rng.uniform(0.02, 0.3, independent)
    return np.c_[a, a, c, outer, one, other, rest].astype(np.int8)


def test_what_is_planted_is_found_and_nothing_else():
    """P221. By counts alone labels that are rare exclude each other."""
    by_counts = 0
    for seed in range(5):
        labels = planted(seed)
        names = [f"label {c}" for c in range(labels.shape[1])]
        found = relations(labels, names, **HOW)
        kinds = [("identical", 0, 1), ("subsumed", 2, 3), ("exclusive", 4, 5)]
        assert [(each.kind, each.first, each.second) for each in found] == kinds
        assert found[1].names == ("label 2", "label 3") and found[2].together == 0
        by_counts += np.sum(np.triu(labels.T.astype(int) @ labels, 1)[6:, 6:][np.triu_indices(50, 1)] == 0)
    assert by_counts > 500


def test_p_values_and_expectations_are_those_of_enumeration():
    """Holm's correction of exact tests, each a sum over tables with the same margins."""
    labels = np.random.default_rng(0).integers(0, 2, (14, 3)).astype(np.int8)
    labels[:, 1] = labels[:, 0]
    labels[0, 1] = -1
    (found,) = relations(labels, "abc", **HOW)

    def tails(a, b):
        rows = [(x, y) for x, y in labels[:, [a, b]] if x >= 0 and y >= 0]
        n, ones, others = len(rows), sum(x for x, _ in rows), sum(y for _, y in rows)
        both = sum(x and y for x, y in rows)
        chance = [
            math.comb(ones, k) * math.comb(n - ones, others - k) / math.comb(n, others) for k in range(others + 1)
        ]
        return sum(chance[both:]), sum(chance[: both + 1]), ones * others / n

    pairs = list(itertools.combinations(range(3), 2))
    tests = sorted(p for pair in pairs for p in tails(*pair)[:2])
    p, _, chance = tails(0, 1)
    rank = tests.index(p)
    assert found.p_value == pytest.approx(max((6 - i) * tests[i] for i in range(rank + 1)), rel=1e-12)
    assert found.expected == pytest.approx(chance)


def test_labels_with_few_positives_are_in_no_relation(caplog):
    labels = np.zeros((100, 2), np.int8)
    labels[:4] = 1
    with caplog.at_level("INFO"):
        assert relations(labels, ("rare", "seldom"), **HOW) == []
    assert "too few positives, below 5: rare, seldom" in caplog.text
    with pytest.raises(ValueError, match=r"labels must be \[N, C\] with C names, got \(100, 2\) and 1 names"):
        relations(labels, ["one"], **HOW)


def test_closure_adds_what_follows_and_takes_nothing_away():
    rng = np.random.default_rng(0)
    inner = rng.random(300) < 0.2
    middle = inner | (rng.random(300) < 0.2)
    outer = middle | (rng.random(300) < 0.2)
    truth = np.c_[inner, middle, outer, outer].astype(np.int8)
    found = relations(truth, "abcd", **HOW)
    assert {(each.kind, each.first, each.second) for each in found} >= {("subsumed", 0, 1), ("identical", 2, 3)}
    chain = [each for each in found if (each.first, each.second) != (0, 2) and each.second != 3 or each.first == 2]
    said = np.array([[1, 0, 0, -1], [0, 1, -1, 0], [0, 0, 0, 1], [-1, 0, 0, 0]], np.int8)
    wanted = [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [-1, 0, 0, 0]]
    assert close(said, chain).tolist() == wanted and close(said, chain).dtype == np.int8
    assert close(close(said, chain), chain).tolist() == wanted
    assert close(said, []).tolist() == said.tolist()


def blocks(rng, groups, count):
    """Rows that each have most labels of one group."""
    labels = np.zeros((count, 8), np.int8)
    for row in labels:
        group = list(groups[rng.integers(len(groups))])
        row[group] = rng.random(len(group)) < 0.9
    return labels


BEFORE, AFTER = [(0, 1, 2, 3), (4, 5, 6, 7)], [(0, 1, 4, 5), (2, 3, 6, 7)]


@pytest.mark.parametrize("seed", range(5))
def test_a_tree_finds_groups_and_finds_them_anew_when_they_change(seed):
    """P58. A tree that only splits keeps the groups of the rows before."""
    rng = np.random.default_rng(seed)
    tree = LabelTree(8, window=400, delta=0.05, tie=0.1)
    for _ in range(10):
        tree.update(blocks(rng, BEFORE, 50))
    assert tree.leaves == BEFORE
    for _ in range(8):
        tree.update(blocks(rng, AFTER, 50))
    assert tree.leaves == AFTER


def test_trees_of_little():
    tree = LabelTree(1, window=10, delta=0.05, tie=0.1)
    tree.update(np.ones((20, 1), np.int8))
    assert tree.leaves == [(0,)]
    tree = LabelTree(3, window=400, delta=0.05, tie=0.1)
    tree.update(np.zeros((0, 3), np.int8))
    tree.update(-np.ones((400, 3), np.int8))  # never seen: all at distance 1, none nearer than another
    assert tree.leaves == [(0, 1, 2)]
    with pytest.raises(ValueError, match=r"labels must be \[B, 3\], got \(2, 4\)"):
        tree.update(np.zeros((2, 4), np.int8))
    with pytest.raises(ValueError, match="window = 0"):
        LabelTree(3, window=0, delta=0.05, tie=0.1)
