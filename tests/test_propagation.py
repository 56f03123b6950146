"""Labels that spread over neighbouring features, against a dense solution and against a probe."""

import numpy as np
import pytest
from sklearn.datasets import make_moons

from experiments.plans import evals as evals_memory
from labelfx.evals import memory
from labelfx.evals.classification import linear_probe
from labelfx.evals.graphs import feature_propagation
from labelfx.loop.mesh import make_mesh


def clouds(seed=0, size=90, classes=3):
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    return (rng.normal(size=(size, 5)) + 1.5 * np.eye(5)[labels] - 0.4).astype(np.float32), labels.astype(np.int32)


def solved(x, labels, k, gamma, alpha):
    """Iscen et al. 2019 by loops and a dense solution: of the first len(labels) rows the class is known."""
    x = x.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    near = np.zeros((len(x), len(x)))
    for i, row in enumerate(x):
        cosine = x @ row
        cosine[i] = -np.inf
        for j in np.argsort(-cosine)[:k]:
            near[i, j] = max(cosine[j], 0) ** gamma
    w = near + near.T
    d = w.sum(1)
    w = np.array([[w[i, j] / np.sqrt(d[i] * d[j]) if w[i, j] else 0 for j in range(len(x))] for i in range(len(x))])
    start = np.zeros((len(x), labels.max() + 1))
    start[np.arange(len(labels)), labels] = 1
    return np.linalg.solve(np.eye(len(x)) - alpha * w, start)


@pytest.mark.parametrize(("k", "gamma", "alpha"), [(4, 3.0, 0.9), (7, 1.0, 0.99), (10, 2.0, 0.5)])
def test_it_is_the_dense_solution(k, gamma, alpha):
    x, labels = clouds()
    told, seen, test = np.arange(9), np.arange(5, 60), np.arange(60, 90)
    expected = solved(x, labels[:9], k, gamma, alpha)[60:]
    rows, others = told + 100, seen + 100  # those that are labelled are among the rows without labels
    how = {"k": k, "gamma": gamma, "alpha": alpha}
    for shift, accuracy in ((0, 1.0), (1, 0.0)):
        wanted = (expected.argmax(1) + shift) % 3
        found = feature_propagation(rows, x[told], labels[told], others, x[seen], x[test], wanted, 3, **how)
        assert found == {"accuracy": accuracy, "reached": 1.0, "rows": 90, "split": "test", "n": 30, "n_labels": 9}


def test_a_row_without_neighbours_that_lead_to_a_label_is_not_reached():
    x = np.eye(6, dtype=np.float32)[[0, 1, 0, 1, 2, 2]]
    x[2:] += 0.01 * x[2:]
    found = feature_propagation(
        np.arange(2),
        x[:2],
        np.array([0, 1], np.int32),
        np.arange(2, 2),
        x[2:2],
        x[2:],
        np.array([0, 1, 0, 1], np.int32),
        2,
        k=1,
        gamma=1.0,
        alpha=0.9,
    )
    assert found["accuracy"] == 0.5 and found["reached"] == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_two_moons_are_told_by_their_neighbours_where_a_probe_fails(seed):
    """With random Fourier features, whose cosine is a Gaussian kernel (Rahimi and Recht 2007)."""
    rng = np.random.default_rng(seed)
    points, labels = make_moons(400, noise=0.05, random_state=seed)
    waves, shift = rng.normal(scale=5.0, size=(2, 512)), rng.uniform(0, 2 * np.pi, 512)
    x, labels = np.cos(points @ waves + shift).astype(np.float32), labels.astype(np.int32)
    told = np.array([np.flatnonzero(labels == c)[0] for c in (0, 1)])
    seen, test = np.arange(0, 400, 2), np.arange(1, 400, 2)
    here = x[told], labels[told]
    probe = linear_probe(*here, x[test], labels[test], 2)["accuracy"]
    found = feature_propagation(told, *here, seen, x[seen], x[test], labels[test], 2, k=8, gamma=3.0, alpha=0.99)
    assert found["accuracy"] > 0.97 and found["accuracy"] > probe + 0.1


def test_what_is_stated_of_memory_is_what_the_compiler_counts(monkeypatch):
    sizes = evals_memory.IMAGENET
    rows = sizes.labelled + sizes.scored + sizes.test
    monkeypatch.setitem(evals_memory.EVALS, "knn", {"k": 50 + 1, "temperature": 1.0})
    whole = sizes._replace(test=rows)
    counted = evals_memory.compiled("knn", whole, make_mesh(1, 1))
    stated = memory.needs("feature_propagation", {"k": 50, "gamma": 3.0, "alpha": 0.99}, (), sizes).device
    assert counted <= stated < 2 * counted
