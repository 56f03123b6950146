"""Confident learning against loops, on joints that are known, and what its thresholds and averages are for."""

from typing import get_args

import numpy as np
import pytest
from toys import assert_beats

from labelfx.labels import confident
from labelfx.labels.confident import (
    compute_confident_joint,
    estimate_latent,
    find_label_issues,
    find_multilabel_issues,
    get_confident_thresholds,
    get_label_quality_scores,
    get_multilabel_quality_scores,
)


@pytest.fixture(params=[0, 1, 2])
def drawn(request):
    """Labels of four classes, of which the last is never given by seed 2, and probabilities that know more."""
    rng = np.random.default_rng(request.param)
    labels = rng.integers(0, 3 if request.param == 2 else 4, 60)
    probs = 0.7 * rng.dirichlet(np.full(4, 0.5), 60) + 0.3 * np.eye(4)[labels]
    return labels, probs


def loop_joint(labels, probs):
    """(thresholds, joint before calibration, rows that are confidently of another class)."""
    classes = probs.shape[1]
    limits = [np.mean(probs[labels == c, c]) if (labels == c).any() else 2 for c in range(classes)]
    joint, others = np.zeros((classes, classes), int), []
    for n, row in enumerate(probs):
        reached = [c for c in range(classes) if row[c] >= limits[c] - 1e-6]
        if reached:
            guess = reached[0] if len(reached) == 1 else int(row.argmax())
            joint[labels[n], guess] += 1
            others += [n] if guess != labels[n] else []
    for c in range(classes):
        joint[c, c] = max(joint[c, c], 1)
    return limits, joint, others


def test_joint_by_loops(drawn, monkeypatch):
    labels, probs = drawn
    limits, joint, others = loop_joint(labels, probs)
    monkeypatch.setattr(confident, "BLOCK", 28)  # 7 rows at once
    np.testing.assert_allclose(get_confident_thresholds(labels, probs), limits, atol=1e-12)
    np.testing.assert_array_equal(compute_confident_joint(labels, probs, calibrate=False), joint)
    scaled = compute_confident_joint(labels, probs)
    given = np.bincount(labels, minlength=4)
    np.testing.assert_array_equal(scaled.sum(1), given)
    assert np.abs(scaled - joint / joint.sum(1, keepdims=True) * given[:, None]).max() < 1
    found = find_label_issues(labels, probs, filter_by="confident_learning")
    np.testing.assert_array_equal(np.flatnonzero(found), [n for n in others if probs[n].argmax() != labels[n]])


def test_pruning_by_loops(drawn):
    labels, probs = drawn
    joint, doubted = compute_confident_joint(labels, probs), probs.argmax(1) != labels
    expected = {"prune_by_class": set(), "prune_by_noise_rate": set()}
    for given in range(4):
        rows = np.flatnonzero(labels == given)
        if len(rows) < 2:
            continue
        least = sorted(rows, key=lambda n, c=given: probs[n, c])
        expected["prune_by_class"] |= set(least[: len(rows) - max(joint[given, given], 1)])
        for other in range(4):
            if other != given:
                ahead = sorted(rows, key=lambda n, c=given, o=other: probs[n, c] - probs[n, o])
                expected["prune_by_noise_rate"] |= set(ahead[: joint[given, other]])
    expected["both"] = expected["prune_by_class"] & expected["prune_by_noise_rate"]
    for filter_by, rows in expected.items():
        found = find_label_issues(labels, probs, filter_by=filter_by)
        assert set(np.flatnonzero(found)) == {n for n in rows if doubted[n]}, filter_by
    np.testing.assert_array_equal(find_label_issues(labels, probs, filter_by="predicted_neq_given"), doubted)


def test_scores_by_loops(drawn):
    labels, probs = drawn
    for n, (y, row) in enumerate(zip(labels, probs, strict=True)):
        entropy = -sum(p * np.log(p) for p in row if p > 0) / np.log(4) / row[y]
        expected = {
            "self_confidence": row[y],
            "normalized_margin": (1 + row[y] - max(p for c, p in enumerate(row) if c != y)) / 2,
            "confidence_weighted_entropy": np.log(1 + entropy) / entropy,
        }
        for method, value in expected.items():
            assert abs(get_label_quality_scores(labels, probs, method=method)[n] - value) < 1e-12, method
    limits = get_confident_thresholds(labels, probs)
    moved = probs - limits + limits.max()
    moved /= moved.sum(1, keepdims=True)
    expected = get_label_quality_scores(labels, moved, method="normalized_margin")
    found = get_label_quality_scores(labels, probs, method="normalized_margin", adjust_pred_probs=True)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    for score in ("self_confidence", "normalized_margin"):
        lowest = find_label_issues(labels, probs, filter_by=f"low_{score}")
        values = get_label_quality_scores(labels, probs, method=score)
        assert lowest.sum() == find_label_issues(labels, probs, filter_by="confident_learning").sum()
        assert not lowest.any() or values[lowest].max() <= values[~lowest].min()


def test_a_known_joint_is_found():
    """Calibrated probabilities, classes that are told apart: the noise matrix and the prior come back."""
    rng = np.random.default_rng(0)
    noise = np.array([[0.8, 0.1, 0.0], [0.2, 0.9, 0.1], [0.0, 0.0, 0.9]])  # P(given i | true j)
    prior = np.array([0.5, 0.3, 0.2])
    true = rng.choice(3, 20_000, p=prior)
    labels = (rng.random((20_000, 1)) > noise.T.cumsum(1)[true]).sum(1)
    probs = noise.T[true]  # what a classifier of given labels would say
    py, found, inverse = estimate_latent(compute_confident_joint(labels, probs), labels)
    np.testing.assert_allclose(py, prior, atol=0.02)
    np.testing.assert_allclose(found, noise, atol=0.02)
    np.testing.assert_allclose(inverse.sum(0), 1, atol=1e-12)
    np.testing.assert_allclose(inverse * (noise @ prior), (noise * prior).T, atol=0.02)
    assert (find_label_issues(labels, np.eye(3)[true] * 0.94 + 0.02) == (labels != true)).mean() > 0.999


def test_a_threshold_for_each_class():
    """A classifier is right of A at .6 and of B at .95: what is called B at .75 is doubtful, what is called A at .6 is
    not, which scores say by the class's own threshold alone."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        true = np.repeat([0, 1], 500)
        wrong = (true == 0) & (rng.random(1000) < 0.1)
        labels = np.where(wrong, 1, true)
        own = np.where(wrong, 0.75, np.where(true == 0, 0.6, 0.95)) + rng.uniform(-0.04, 0.04, 1000)
        probs = np.stack([np.where(labels == 0, own, 1 - own), np.where(labels == 0, 1 - own, own)], 1)
        scores = [get_label_quality_scores(labels, probs, adjust_pred_probs=adjust) for adjust in (True, False)]
        found.append([wrong[np.argsort(score)[: wrong.sum()]].mean() for score in scores])
    assert np.min(found, 0)[0] > 0.9 and np.max(found, 0)[1] < 0.1


def test_true_labels_are_left_alone():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 5000)
    logits = 4 * np.eye(5)[labels] + rng.normal(size=(5000, 5))
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for filter_by in get_args(confident.Filter):
        assert find_label_issues(labels, probs, filter_by=filter_by).mean() < 0.01, filter_by


def test_multilabel_scores():
    """The values of the authors' documentation, and an average without what is not known."""
    labels, probs = np.ones((2, 3), int), np.array([[0.9, 0.9, 0.3], [0.4, 0.9, 0.6]])
    for alpha, expected in ((0.8, [0.42, 0.452]), (0.5, [0.6, 0.575])):
        np.testing.assert_allclose(get_multilabel_quality_scores(labels, probs, alpha=alpha), expected, atol=1e-12)
    partly = np.array([[1, -1, 0], [-1, -1, -1]])
    np.testing.assert_allclose(get_multilabel_quality_scores(partly, probs), [0.8 * 0.7 + 0.2 * 0.9, np.nan])


def test_multilabel_issues_are_those_of_any_class(caplog):
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 4)) < 0.4).astype(int)
    probs = np.clip(0.5 * rng.random((80, 4)) + 0.5 * labels, 0, 1)
    labels = np.where(rng.random((80, 4)) < 0.1, 1 - labels, labels)
    labels[rng.random((80, 4)) < 0.1] = -1
    labels[:, 3] = 0
    for filter_by in ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning", "predicted_neq_given"):
        expected = np.zeros(80, bool)
        for c in range(3):
            known = labels[:, c] >= 0
            binary = np.stack([1 - probs[known, c], probs[known, c]], 1)
            expected[known] |= find_label_issues(labels[known, c], binary, filter_by=filter_by)
        np.testing.assert_array_equal(find_multilabel_issues(labels, probs, filter_by=filter_by), expected)
    assert "labels [3] are not both given and not given" in caplog.text
    scores = get_multilabel_quality_scores(labels, probs)
    lowest = find_multilabel_issues(labels, probs, filter_by="low_self_confidence")
    assert lowest.sum() == find_multilabel_issues(labels, probs, filter_by="confident_learning").sum() > 0
    assert scores[lowest].max() <= scores[~lowest].min()


def test_one_wrong_label_of_many():
    """Twenty labels, one of them wrong: the mean of their scores hardly sees it, the moving average does."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = (rng.random((300, 20)) < 0.3).astype(int)
        sure = rng.uniform(0.55, 1.0, (300, 20))
        wrong = rng.random(300) < 0.2
        sure[wrong, rng.integers(0, 20, wrong.sum())] = 0.1
        probs = np.where(labels == 1, sure, 1 - sure)
        scores = get_multilabel_quality_scores(labels, probs), sure.mean(1)
        found.append([wrong[np.argsort(score)[: wrong.sum()]].mean() for score in scores])
    assert np.min(found, 0)[0] == 1
    assert_beats(*np.transpose(found))


GOOD = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
SEVERAL = np.array([[0, 1], [1, -1]]), np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    "function, labels, probs, how, line",
    [
        (find_label_issues, GOOD[0], GOOD[1], {"filter_by": "prune"}, "filter_by = 'prune': must be one of prune_by"),
        (get_label_quality_scores, GOOD[0], GOOD[1], {"method": "margin"}, "method = 'margin': must be one of self_"),
        (find_label_issues, np.array([1, 1, 1]), GOOD[1], {}, "all labels are class 1"),
        (find_label_issues, np.array([0, 1, 2]), GOOD[1], {}, r"labels lie in 0..2: allowed 0..1"),
        (find_label_issues, np.array([0, 1, -1]), GOOD[1], {}, r"labels lie in -1..1: allowed 0..1"),
        (find_label_issues, np.array([0.0, 1, 1]), GOOD[1], {}, "labels are float64: must be integers"),
        (find_label_issues, GOOD[0][:2], GOOD[1], {}, r"labels \(2,\) and pred_probs \(3, 2\)"),
        (get_confident_thresholds, GOOD[0], GOOD[1] * [1, 0.5], {}, "pred_probs of row 1 sum to 0.6: must sum to 1"),
        (compute_confident_joint, GOOD[0], GOOD[1] * [np.nan, 1], {}, "pred_probs lie in nan..nan"),
        (compute_confident_joint, GOOD[0], GOOD[1] - 0.5, {}, r"pred_probs lie in -0.4..0.4"),
        (find_label_issues, GOOD[0] * 0, GOOD[1][:, :1], {}, "pred_probs are of one class"),
        (find_label_issues, GOOD[0][:0], GOOD[1][:0], {}, "of N rows and C classes"),
        (
            get_label_quality_scores,
            *GOOD,
            {"method": "confidence_weighted_entropy", "adjust_pred_probs": True},
            "adjust_pred_probs: not with",
        ),
        (find_multilabel_issues, SEVERAL[0] + 1, SEVERAL[1], {}, r"labels lie in 0..2: allowed 1, 0, and -1"),
        (find_multilabel_issues, SEVERAL[0][:, :1], SEVERAL[1], {}, r"labels \(2, 1\) and pred_probs \(2, 2\)"),
        (get_multilabel_quality_scores, *SEVERAL, {"alpha": 1.5}, "alpha = 1.5: must be in"),
    ],
)
def test_one_line(function, labels, probs, how, line):
    with pytest.raises(ValueError, match=line) as error:
        function(labels, probs, **how)
    assert "\n" not in str(error.value)
