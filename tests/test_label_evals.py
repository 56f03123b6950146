"""Evals of labels of every kind against loop forms and scikit-learn, on planted scores and real digits."""

import itertools
import warnings

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax
from sklearn import metrics
from sklearn.datasets import load_digits
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression

from labelfx.evals import classification
from labelfx.evals.bags import bag_auc
from labelfx.evals.calibration import calibration, reliability, soft_labels
from labelfx.evals.dense import mean_iou
from labelfx.evals.label_free import matrix_nuclear_norm, transfer_score, vendi
from labelfx.evals.multilabel import multilabel, multilabel_probe
from labelfx.evals.representation import rankme


def plain(found):
    """An eval's results are plain Python values."""
    assert {type(each) for each in found.values()} <= {float, int, str, bool, list, type(None)}


# Several labels.


def several(seed=0, rows=60, classes=7, unknown=0.0):
    """Scores that know something of the labels; the last class has no positive, a row has none."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, classes)) < np.linspace(0.5, 0.1, classes)).astype(np.int8)
    labels[:, -1] = 0
    labels[0] = 0
    scores = 1.5 * labels + rng.normal(size=(rows, classes)) - 1
    labels[rng.random(labels.shape) < unknown] = -1
    return scores.astype(np.float32), labels


def test_multilabel_is_scikit_learn():
    scores, labels = several()
    found = multilabel(scores, labels, labels, threshold=0.5, k=(1, 3))
    occurs, rows = labels.any(axis=0), labels.any(axis=1)
    predicted = (expit(scores) >= 0.5).astype(int)
    each = [metrics.average_precision_score(labels[:, c], scores[:, c]) for c in np.flatnonzero(occurs)]
    np.testing.assert_allclose(found["mAP"], np.mean(each), rtol=1e-12)
    np.testing.assert_allclose(found["micro_AP"], metrics.average_precision_score(labels.ravel(), scores.ravel()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        per_class = metrics.precision_recall_fscore_support(labels[:, occurs], predicted[:, occurs], average="macro")
        overall = metrics.precision_recall_fscore_support(labels, predicted, average="micro")
        jaccard = metrics.jaccard_score(labels, predicted, average="samples")
    np.testing.assert_allclose([found["CP"], found["CR"]], per_class[:2], rtol=1e-12)
    np.testing.assert_allclose(found["CF1"], 2 / (1 / found["CP"] + 1 / found["CR"]), rtol=1e-12)
    np.testing.assert_allclose([found[name] for name in ("OP", "OR", "OF1")], overall[:3], rtol=1e-12)
    neither = ~(labels | predicted).any(axis=1)
    np.testing.assert_allclose(found["jaccard"], jaccard + neither.mean(), rtol=1e-12)
    np.testing.assert_allclose(found["subset_accuracy"], metrics.accuracy_score(labels, predicted))
    np.testing.assert_allclose(found["hamming"], metrics.hamming_loss(labels, predicted))
    np.testing.assert_allclose(found["ranking_loss"], metrics.label_ranking_loss(labels[rows], scores[rows]))
    for k in (1, 3):
        np.testing.assert_allclose(found[f"ndcg_at_{k}"], metrics.ndcg_score(labels[rows], scores[rows], k=k))
        best = np.argsort(-scores, axis=1)[:, :k]
        hits = np.array([labels[i, best[i]].sum() for i in np.flatnonzero(rows)])
        np.testing.assert_allclose(found[f"precision_at_{k}"], np.mean(hits / k))
        np.testing.assert_allclose(found[f"recall_at_{k}"], np.mean(hits / labels[rows].sum(axis=1)))
    assert (found["split"], found["n"], found["n_labels"], found["n_empty_classes"]) == ("test", 60, 420, 1)
    plain(found)


def test_unknown_entries_are_left_out():
    """As if there were nothing: the numbers are those of each class, or row, without them."""
    scores, labels = several(unknown=0.3)
    labels[5] = -1
    found = multilabel(scores, labels, labels, threshold=0.5, k=(2,))
    other = np.where(labels < 0, 100, scores).astype(np.float32)
    assert multilabel(other, labels, labels, threshold=0.5, k=(2,)) == found
    known = labels >= 0
    predicted = scores >= 0
    occurs = np.flatnonzero((labels > 0).any(axis=0))
    each = [metrics.average_precision_score(labels[known[:, c], c], scores[known[:, c], c]) for c in occurs]
    np.testing.assert_allclose(found["mAP"], np.mean(each), rtol=1e-12)
    np.testing.assert_allclose(found["OF1"], metrics.f1_score(labels[known], predicted[known]))
    np.testing.assert_allclose(found["hamming"], np.mean(labels[known] != predicted[known]))
    right = [np.array_equal(labels[i, known[i]], predicted[i, known[i]]) for i in range(60) if known[i].any()]
    np.testing.assert_allclose(found["subset_accuracy"], np.mean(right))
    gains = []
    for row, y in zip(scores, labels, strict=True):
        if (y > 0).any():
            best = sorted(np.flatnonzero(y >= 0), key=lambda c, row=row: -row[c])[:2]
            gain = sum((y[c] > 0) / np.log2(rank + 2) for rank, c in enumerate(best))
            gains.append(gain / sum(1 / np.log2(rank + 2) for rank in range(min(2, (y > 0).sum()))))
    np.testing.assert_allclose(found["ndcg_at_2"], np.mean(gains))


def test_floors_of_several_labels():
    """Constant scores reach the prevalence, which a tie-blind average precision would not; all positive its OF1."""
    _, labels = several()
    constant = np.zeros(labels.shape, np.float32)
    found = multilabel(constant, labels, labels, threshold=0.5, k=(1,))
    np.testing.assert_allclose(found["mAP"], found["prevalence"], rtol=1e-12)
    np.testing.assert_allclose(found["prevalence"], labels[:, labels.any(axis=0)].mean())
    np.testing.assert_allclose(found["OF1"], found["all_positive_OF1"], rtol=1e-12)
    assert found["ranking_loss"] == 1


def test_head_and_tail_are_counted_in_the_label_view():
    labels = np.eye(6, dtype=np.int8)
    labelled = np.repeat(np.eye(6, dtype=np.int8), [1, 9, 3, 7, 2, 5], axis=0)
    scores = np.where(labels > 0, [0, 9, 0, 9, 0, 9], 1).astype(np.float32)  # right for classes 1, 3 and 5
    found = multilabel(scores, labels, labelled, threshold=0.5, k=(1,))
    assert found["head_mAP"] == 1
    np.testing.assert_allclose([found["medium_mAP"], found["tail_mAP"]], [(1 + 1 / 6) / 2, 1 / 6])


def test_nothing_positive_and_nothing_known():
    labels = np.zeros((4, 2), np.int8)
    found = multilabel(np.ones((4, 2), np.float32), labels, labels, threshold=0.5, k=(1,))
    nothing = "mAP micro_AP CP CR CF1 precision_at_1 recall_at_1 ndcg_at_1 ranking_loss head_mAP tail_mAP prevalence"
    assert all(found[name] is None for name in nothing.split())
    assert (found["OF1"], found["hamming"], found["subset_accuracy"], found["n_empty_classes"]) == (0, 1, 0, 2)
    with pytest.raises(ValueError, match="test_labels has no known entry"):
        multilabel(np.ones((4, 2), np.float32), labels - 1, labels, threshold=0.5, k=(1,))
    with pytest.raises(ValueError, match=r"k = \(1, 3\): must be numbers up to the 2 classes"):
        multilabel(np.ones((4, 2), np.float32), labels, labels, threshold=0.5, k=(1, 3))


def digits_of_parts(rows):
    """Labels of a digit: even, above 4, prime, has a hole, is 7."""
    data = load_digits()
    x, y = data.data.astype(np.float32) / 16, data.target
    labels = np.stack([np.isin(y, s) for s in ((0, 2, 4, 6, 8), (5, 6, 7, 8, 9), (2, 3, 5, 7), (0, 6, 8, 9), (7,))], 1)
    return x[:rows], labels[:rows].astype(np.int8), x[rows : rows + 500], labels[rows : rows + 500].astype(np.int8)


def test_multilabel_probe_is_independent_logistic_regressions(monkeypatch):
    monkeypatch.setattr(classification, "GRID", (1e-1, 1e-2, 1e-4))
    x, labels, test, test_labels = digits_of_parts(100)
    rng = np.random.default_rng(0)
    labels[rng.random(labels.shape) < 0.2] = -1
    found = multilabel_probe(x, labels, test, test_labels, 5, threshold=0.5, k=(1,))
    assert found["converged"] and found["chosen_by"] == "5-fold cross-validation in the label view"
    mean = x.mean(axis=0)
    scale = np.sqrt(np.mean(np.sum((x - mean) ** 2, axis=1)))
    x, test = (x - mean) / scale, (test - mean) / scale
    fold = np.random.default_rng(0).permutation(100) % 5

    def fit(c, rows, regularisation):
        rows = rows & (labels[:, c] >= 0)
        model = LogisticRegression(C=1 / (regularisation * rows.sum()), tol=1e-6, solver="newton-cholesky")
        return model.fit(x[rows], labels[rows, c])

    losses = {}
    for regularisation in classification.GRID:
        held_out = []
        for k, c in itertools.product(range(5), range(5)):
            rows = (fold == k) & (labels[:, c] >= 0)
            chances = fit(c, fold != k, regularisation).predict_proba(x[rows])
            held_out += list(-np.log(chances[np.arange(rows.sum()), labels[rows, c]]))
        losses[regularisation] = np.mean(held_out)
    assert found["regularisation"] == min(losses, key=losses.get)
    every = np.ones(100, bool)
    logits = np.stack([fit(c, every, found["regularisation"]).decision_function(test) for c in range(5)], axis=1)
    expected = multilabel(logits, test_labels, labels, threshold=0.5, k=(1,))
    for name in ("mAP", "micro_AP", "OF1", "ranking_loss"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-3)
    assert found["mAP"] > found["prevalence"] + 0.3
    plain(found)


def test_multilabel_probe_chooses_in_the_label_view_and_takes_what_is_there():
    x, labels, test, test_labels = digits_of_parts(100)
    found = multilabel_probe(x, labels, test, test_labels, 5, threshold=0.5, k=(1,))
    other = multilabel_probe(x, labels, test, 1 - test_labels, 5, threshold=0.5, k=(1,))
    assert found["regularisation"] == other["regularisation"] in classification.GRID
    labels[:, 4] = -1  # nothing is known of a class: none has it
    labels[:, 3] = 0
    labels[4:, :3] = -1
    few = multilabel_probe(x, labels, test, test_labels, 5, threshold=0.5, k=(1,))
    assert few["chosen_by"].startswith("fixed") and few["converged"] and np.isfinite(few["mAP"])


# Calibration.


def loop_ece(confidence, right, edges):
    total = 0.0
    for low, high in itertools.pairwise(edges):
        own = [i for i, c in enumerate(confidence) if low <= c < high or (high == edges[-1] and c == high)]
        if own:
            total += len(own) / len(right) * abs(np.mean(confidence[own]) - np.mean(right[own]))
    return total


def test_calibration():
    rng = np.random.default_rng(0)
    logits = (2 * rng.normal(size=(301, 4))).astype(np.float32)
    labels = rng.integers(-1, 4, 301).astype(np.int32)
    found = calibration(logits, labels, bins=10)
    known = labels >= 0
    p, y = softmax(logits[known].astype(np.float64), axis=1), labels[known]
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    edges = np.linspace(0, 1, 11)
    np.testing.assert_allclose(found["ece"], loop_ece(confidence, right, edges), rtol=1e-12)
    classwise = np.mean([loop_ece(p[:, c], y == c, edges) for c in range(4)])
    np.testing.assert_allclose(found["classwise_ece"], classwise, rtol=1e-12)
    np.testing.assert_allclose(found["nll"], metrics.log_loss(y, p), rtol=1e-12)
    np.testing.assert_allclose(found["brier"], np.mean(np.sum((p - np.eye(4)[y]) ** 2, axis=1)), rtol=1e-12)
    order = np.argsort(-confidence, kind="stable")
    risk = [np.mean(~right[order[:n]]) for n in range(1, len(y) + 1)]
    least = [max(0, n - right.sum()) / n for n in range(1, len(y) + 1)]
    np.testing.assert_allclose([found["aurc"], found["e_aurc"]], [np.mean(risk), np.mean(risk) - np.mean(least)])
    parts = np.array_split(order, 10)
    adaptive = sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts) / len(y)
    np.testing.assert_allclose(found["adaptive_ece"], adaptive, rtol=1e-12)
    np.testing.assert_allclose(found["overconfidence"], confidence.mean() - right.mean())
    assert found["mce"] >= found["ece"] and found["n"] == known.sum()
    plain(found)


def test_calibration_of_several_labels():
    scores, labels = several(unknown=0.3)
    found = calibration(scores, labels, bins=5)
    known = labels >= 0
    p, y = expit(scores.astype(np.float64))[known], labels[known]
    np.testing.assert_allclose(found["brier"], metrics.brier_score_loss(y, p), rtol=1e-12)
    np.testing.assert_allclose(found["nll"], metrics.log_loss(y, p), rtol=1e-12)
    confidence = np.maximum(p, 1 - p)
    np.testing.assert_allclose(found["ece"], loop_ece(confidence, (p > 0.5) == y, np.linspace(0, 1, 6)), rtol=1e-12)
    columns = [(expit(scores.astype(np.float64)[rows, c]), labels[rows, c]) for c, rows in enumerate(known.T)]
    classwise = np.mean([loop_ece(*column, np.linspace(0, 1, 6)) for column in columns])
    np.testing.assert_allclose(found["classwise_ece"], classwise, rtol=1e-12)
    assert found["n"] == known.sum()


def test_calibration_tells_sure_from_right():
    """Labels drawn from the softmax itself are calibrated; tripled logits are overconfident, ranked as before."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1).astype(np.int32)
    right, sure = (calibration(scale * logits, labels, bins=15) for scale in (1, 3))
    assert right["ece"] < 0.02 < 0.2 < sure["ece"]
    assert abs(right["overconfidence"]) < 0.01 and sure["overconfidence"] > 0.2
    assert right["nll"] < sure["nll"] and right["brier"] < sure["brier"]
    with pytest.raises(ValueError, match="test_labels has no known label"):
        calibration(logits, np.full(20_000, -1), bins=15)


def test_the_last_bin_holds_its_end():
    mean, hits, n = reliability(np.array([0.0, 0.5, 0.96, 1.0]), np.array([True, True, False, True]), 10)
    np.testing.assert_allclose(mean, [0, 0.5, 0.98])
    assert hits.tolist() == [1, 1, 0.5] and n.tolist() == [1, 1, 2]


def test_a_network_that_is_sure_and_right():
    logits = 1000 * np.eye(3)[[0, 1, 2, 0]]
    found = calibration(logits, np.array([0, 1, 2, 0]), bins=15)
    zero = "ece mce adaptive_ece classwise_ece brier nll aurc e_aurc overconfidence"
    assert all(found[name] == 0 for name in zero.split())
    assert calibration(logits, np.array([1, 1, 2, 0]), bins=15)["nll"] == -log_softmax(logits[0])[1] / 4


# Positions.


def test_mean_iou():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, (4, 5, 6)).astype(np.int32)
    logits = rng.normal(size=(4, 5, 6, 5)).astype(np.float32)
    logits[..., 4] = -9  # neither there nor predicted; class 3 is predicted alone
    found = mean_iou(logits, labels, 5)
    y, predicted = labels[labels >= 0], logits.argmax(axis=-1)[labels >= 0]
    each = metrics.jaccard_score(y, predicted, average=None)
    np.testing.assert_allclose(found["iou"][:4], each, rtol=1e-12)
    assert found["iou"][3:] == [0, None]
    np.testing.assert_allclose(found["mean_iou"], each.mean(), rtol=1e-12)
    np.testing.assert_allclose(found["pixel_accuracy"], np.mean(y == predicted), rtol=1e-12)
    assert (found["n"], found["n_pixels"]) == (4, len(y))
    plain(found)
    with pytest.raises(ValueError, match="void everywhere"):
        mean_iou(logits, np.full_like(labels, -1), 5)
    with pytest.raises(ValueError, match=r"must be \(4, 5, 6, 5\), as test_labels says, got \(4, 5, 5, 5\)"):
        mean_iou(logits[:, :, 1:], labels, 5)


# Distributions.


def test_soft_labels():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 5)).astype(np.float32)
    target = rng.dirichlet(np.full(5, 0.3), 40).astype(np.float32)
    target[3], target[7] = np.eye(5)[2], [0.5, 0.5, 0, 0, 0]
    target[11, 2] = np.nan
    found = soft_labels(logits, target)
    log_probs, rows = log_softmax(logits.astype(float), 1), [row for row in range(40) if row != 11]
    cross = np.mean([-sum(t * q for t, q in zip(target[r], log_probs[r], strict=True)) for r in rows])
    kl = np.mean([sum(t * (np.log(t) - q) for t, q in zip(target[r], log_probs[r], strict=True) if t) for r in rows])
    np.testing.assert_allclose([found["cross_entropy"], found["kl"]], [cross, kl], rtol=1e-6)
    np.testing.assert_allclose(found["entropy"], cross - kl, rtol=1e-6)
    right = [np.argmax(logits[r]) == np.argmax(target[r]) for r in rows]
    assert (found["n"], found["split"], found["accuracy"]) == (39, "test", pytest.approx(np.mean(right)))
    assert soft_labels(np.log(np.maximum(target[:3], 1e-30)), target[:3])["kl"] == pytest.approx(0, abs=1e-6)
    plain(found)
    with pytest.raises(ValueError, match="test_target says nothing of any row"):
        soft_labels(logits, np.full_like(target, np.nan))


# Bags.


@pytest.mark.parametrize(
    "pool,of", [("max", max), ("mean", np.mean), ("log_sum_exp", lambda s: np.log(sum(np.exp(s))))]
)
def test_bag_auc(pool, of):
    rng = np.random.default_rng(0)
    bag = rng.permutation(np.repeat(np.arange(20, dtype=np.int32) * 3, 4))
    target = np.full((80, 2), np.nan, np.float32)
    logits = rng.normal(size=(80, 2)).astype(np.float32)
    wanted = {number: float(number % 2) for number in range(0, 57, 3)}  # of bag 57 nothing is said
    for number, y in wanted.items():
        target[bag == number] = [1 - y, y]
    bag[:2] = -1
    found = bag_auc(logits, bag, target, pool=pool)
    margin = logits[:, 1] - logits[:, 0]
    scores = [of(margin[bag == number]) for number in wanted]
    np.testing.assert_allclose(found["auc"], metrics.roc_auc_score([*wanted.values()], scores), rtol=1e-6)
    np.testing.assert_allclose(found["accuracy"], np.mean((np.array(scores) > 0) == [*wanted.values()]))
    assert (found["n"], found["split"], found["positive_share"]) == (19, "test", pytest.approx(9 / 19))
    plain(found)


def test_bag_auc_without_bags_or_a_class():
    logits, bag = np.arange(4, dtype=np.float32)[:, None], np.array([0, 0, 1, 1], np.int32)
    ones = np.ones((4, 1), np.float32)
    assert bag_auc(logits, bag, ones, pool="max")["auc"] is None
    ties = bag_auc(np.zeros((4, 1), np.float32), bag, ones * bag[:, None], pool="max")
    assert ties["auc"] == 0.5
    with pytest.raises(ValueError, match="no row is in a bag with a known test_bag_target"):
        bag_auc(logits, np.full(4, -1, np.int32), ones, pool="max")


# Without labels.


def test_vendi():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 6))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    p = np.linalg.eigvalsh(unit @ unit.T / 30)
    p = p[p > 1e-12]
    found = vendi(x, q=(0.0, 0.5, 1.0, 2.0, np.inf))
    assert found["vendi_0"] == 6 and found["n"] == 30
    plain(found)
    np.testing.assert_allclose(found["vendi_0.5"], np.sum(np.sqrt(p)) ** 2, rtol=1e-9)
    np.testing.assert_allclose(found["vendi_1"], np.prod(p**-p), rtol=1e-9)
    np.testing.assert_allclose(found["vendi_2"], 1 / np.sum(p**2), rtol=1e-9)
    np.testing.assert_allclose(found["vendi_inf"], 1 / p.max(), rtol=1e-9)
    near = vendi(x, q=(1 - 1e-6, 1 + 1e-6))
    np.testing.assert_allclose([near["vendi_0.999999"], near["vendi_1"]], found["vendi_1"], rtol=1e-5)


def test_vendi_counts_what_is_different():
    """P82: as many as there are at right angles; 1 where all are alike; the same of a set twice over; more classes of
    digits are more."""
    q = (0.5, 1.0, 2.0, np.inf)
    for rows, number in ((np.eye(5, 8), 5), (np.ones((5, 8)), 1), (np.tile(np.eye(5, 8), (3, 1)), 5)):
        found = vendi(rows, q=q)
        np.testing.assert_allclose([found[f"vendi_{each:g}"] for each in q], number, rtol=1e-9)
    data = load_digits()
    one, two, ten = (vendi(data.data[data.target < n][:170], q=(1.0,))["vendi_1"] for n in (1, 2, 10))
    assert one * 1.2 < two and two * 1.2 < ten
    with pytest.raises(ValueError, match="row 1 of features has norm nan"):
        vendi(np.array([[1.0, 0], [np.nan, 1]]), q=(1.0,))
    with pytest.raises(ValueError, match="row 0 of features has norm 0.0"):
        vendi(np.zeros((2, 2)), q=(1.0,))


def test_matrix_nuclear_norm():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 30)).astype(np.float32)
    found = matrix_nuclear_norm(x)
    rows = []
    for row in x.astype(np.float64):
        centred = [v - x[:, j].astype(np.float64).mean() for j, v in enumerate(row)]
        rows.append([v / np.sqrt(sum(w * w for w in centred)) for v in centred])
    norms = sorted((np.sqrt(sum(row[j] ** 2 for row in rows)) for j in range(30)), reverse=True)
    np.testing.assert_allclose(found["value"], sum(norms[:20]) / 20, rtol=1e-6)
    np.testing.assert_allclose(found["nuclear_norm"], np.linalg.svd(rows, compute_uv=False).sum() / 20, rtol=1e-6)
    assert found["value"] <= found["bound"] and found["nuclear_norm"] <= found["bound"]
    plain(found)
    collapsed = matrix_nuclear_norm(np.ones((4, 3)))
    assert collapsed["value"] == collapsed["nuclear_norm"] == 0


def test_matrix_nuclear_norm_hardly_sees_collapse():
    """P66, recorded: towards one direction RankMe and the nuclear norm fall by half and more, the score by a tenth; and
    a rotation, which changes neither of them, changes it."""
    rng = np.random.default_rng(0)
    full, line = rng.normal(size=(200, 20)), rng.normal(size=(200, 1)) * rng.normal(size=(1, 20))
    sequence = [matrix_nuclear_norm(line + scale * full) for scale in (10, 0.3, 0.01)]
    value, exact = ([each[name] for each in sequence] for name in ("value", "nuclear_norm"))
    ranks = [float(rankme((line + scale * full).astype(np.float32))) for scale in (10, 0.3, 0.01)]
    assert ranks == sorted(ranks, reverse=True) and ranks[-1] < ranks[0] / 2
    assert exact[-1] < exact[0] / 2
    assert value[-1] > 0.8 * value[0]
    turn = np.linalg.svd(line + 0.01 * full)[2].T
    turned = matrix_nuclear_norm((line + 0.01 * full) @ turn)
    np.testing.assert_allclose(turned["nuclear_norm"], exact[-1], rtol=1e-9)
    assert turned["value"] < value[-1] / 2


def simplex(classes, width):
    kernel = np.zeros((width, classes))
    kernel[:classes] = np.eye(classes) - 1 / classes
    return kernel


def test_transfer_score():
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(6, 4)), rng.normal(size=(400, 6))
    logits = x @ kernel
    found = transfer_score(x, logits, kernel, 0)
    angles = [
        np.arccos(kernel[:, i] @ kernel[:, j] / np.linalg.norm(kernel[:, i]) / np.linalg.norm(kernel[:, j]))
        for i, j in itertools.permutations(range(4), 2)
    ]
    np.testing.assert_allclose(found["uniformity"], np.mean([(each - np.arccos(-1 / 3)) ** 2 for each in angles]))
    p = softmax(logits, axis=1)
    mean = p.mean(axis=0)
    information = np.mean([sum(row * np.log(row / mean)) for row in p]) / np.log(4)
    np.testing.assert_allclose(found["information"], information, rtol=1e-9)
    np.testing.assert_allclose(found["value"], found["hopkins"] - found["uniformity"] + found["information"])
    assert transfer_score(x, logits, kernel, 0) == found != transfer_score(x, logits, kernel, 1)
    plain(found)


def test_what_transfer_score_sees():
    """P148: weights of a simplex are uniform; clusters have Hopkins' statistic near 1, a uniform box near a half; sure
    and balanced predictions have information 1, one class for all 0."""
    rng = np.random.default_rng(0)
    y = np.arange(500) % 5
    kernel = simplex(5, 8)
    clusters = kernel.T[y] + 0.01 * rng.normal(size=(500, 8))
    found = transfer_score(clusters, 1000 * np.eye(5)[y], kernel, 0)
    assert found["uniformity"] < 1e-25 and found["hopkins"] > 0.8
    np.testing.assert_allclose(found["information"], 1)
    box = transfer_score(rng.uniform(size=(2000, 2)), np.zeros((2000, 5)) + [9, 0, 0, 0, 0], kernel, 0)
    assert 0.4 < box["hopkins"] < 0.6 and abs(box["information"]) < 1e-9
    assert transfer_score(np.ones((40, 8)), np.zeros((40, 2)), simplex(2, 8), 0)["hopkins"] == 0.5
    with pytest.raises(ValueError, match="wants two classes and rows or more, got 1, 40"):
        transfer_score(np.ones((40, 8)), np.zeros((40, 1)), np.ones((8, 1)), 0)
