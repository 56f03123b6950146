"""Fréchet means over labels that have distances: what they are, which labels they reach, which to observe next."""

import numpy as np
import pytest

from labelfx.evals.sets import frechet
from labelfx.labels.metric import frechet_mean, locus, next_class

PATH = np.abs(np.subtract.outer(np.arange(5), np.arange(5))).astype(float)
STAR = 2.0 - 2 * np.eye(4)  # a centre, 0, and three leaves
STAR[0, 1:] = STAR[1:, 0] = 1


def test_frechet_mean():
    rng = np.random.default_rng(0)
    probs, distances = rng.dirichlet(np.ones(3), 20), rng.uniform(size=(3, 6))
    risk = [[sum(p[k] * distances[k, m] ** 2 for k in range(3)) for m in range(6)] for p in probs]
    np.testing.assert_array_equal(frechet_mean(probs, distances), np.argmin(risk, 1))
    np.testing.assert_array_equal(frechet_mean(probs, 1.0 - np.eye(3)), probs.argmax(1))  # distances of 0 and 1
    assert frechet_mean(np.array([[0.5, 0.5]]), PATH[[0, 4]]) == [2]  # which was never observed
    assert frechet_mean(np.array([[0.5, 0.5]]), 1.0 - np.eye(2)) == [0]  # the first of two that tie
    assert frechet_mean(np.ones((1, 1)), PATH[[3]]) == [3]


def test_which_labels_are_reached():
    assert locus(PATH, np.array([0, 4])).all()
    assert locus(STAR, np.array([1, 2])).tolist() == [True, True, True, False]
    assert locus(PATH, np.array([1])).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("seed", range(3))
def test_the_locus_is_what_a_grid_of_distributions_reaches(seed):
    points = np.random.default_rng(seed).normal(size=(8, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    share = np.linspace(0, 1, 100_001)
    grid = frechet_mean(np.stack([share, 1 - share], 1), distances[[2, 5]])
    assert np.flatnonzero(locus(distances, np.array([2, 5]))).tolist() == np.unique(grid).tolist()


def test_what_to_observe_next():
    assert next_class(PATH, np.array([1])) == 4  # from there 1 to 4 are reached; from 0, two
    assert next_class(STAR, np.array([1])) == 2


def test_what_is_no_distance():
    with pytest.raises(ValueError, match="must share K"):
        frechet_mean(np.ones((1, 2)), PATH)
    with pytest.raises(ValueError, match="from 0 up"):
        frechet_mean(np.ones((1, 5)), -PATH)
    for wrong in (PATH + np.eye(5), PATH + np.triu(np.ones((5, 5)), 1), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="symmetric, 0 on the diagonal and above 0 elsewhere"):
            locus(wrong, np.array([0]))
    with pytest.raises(ValueError, match="no label was observed"):
        locus(PATH, np.array([], int))
    with pytest.raises(ValueError, match="all 5 labels were observed"):
        next_class(PATH, np.arange(5))


def test_the_eval_judges_both_by_the_distances():
    logits, labels = np.log([[0.5, 1e-9, 0.5], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]]), np.array([1, 2, -1])
    found = frechet(logits, labels, distances=tuple(map(tuple, PATH[:3, :3])))
    assert found == {
        "accuracy": 1.0, "argmax_accuracy": 0.5, "squared_distance": 0.0, "argmax_squared_distance": 0.5,
        "split": "test", "n": 2,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"distances must be \[3, 3\], got \[2, 2\]"):
        frechet(logits, labels, distances=((0, 1), (1, 0)))
