"""Which rows to label next: each query against a loop in float64, and on problems that the one it replaces fails."""

import math
import tracemalloc

import numpy as np
import pytest

from labelfx import config as configs
from labelfx.labels import queries
from labelfx.labels.evidence import Evidence, of_features

HOW = {
    "uniform": {},
    "entropy": {},
    "margin": {},
    "k_centre": {},
    "typiclust": {"neighbours": 4, "max_clusters": 500},
    "probcover": {"clusters": 4, "purity": 0.9},
    "badge": {},
    "dropquery": {"dropout": 0.5, "passes": 3},
    "clue": {"temperature": 0.5},
}
BY_PROBS = ("entropy", "margin", "badge", "dropquery", "clue")


def evidence_of(seed, rows=60, features=5, classes=4):
    """Blobs with a classifier that is right most of the time."""
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=rows)
    x = (2 * np.eye(classes, features)[label] + rng.normal(size=(rows, features))).astype(np.float32)
    weight = rng.normal(size=(features, classes)).astype(np.float32) + 2 * np.eye(features, classes, dtype=np.float32)

    def classify(x):
        logits = (x @ weight).astype(np.float64)
        return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)

    nothing = np.full(rows, np.nan, np.float32)
    return Evidence(classify(x), x, nothing, {}, np.empty(0, np.int64), 0.0, classify)


def ask(name, evidence, told, count, seed=0, **how):
    return getattr(queries, name)(evidence, np.asarray(told, np.int64), count, np.random.default_rng(seed), **how)


def distance(a, b):
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def unit(x):
    return [[float(v) / math.sqrt(sum(float(w) ** 2 for w in row)) for v in row] for row in x]


def clusters_of(points, count, seed=0, weight=None):
    """Those of the query, whose generator draws nothing before."""
    return queries._kmeans(np.asarray(points, np.float32), count, np.random.default_rng(seed), weight)


def test_names():
    assert configs.names(configs.QUERIES) == sorted(HOW)


@pytest.mark.parametrize("name", HOW)
@pytest.mark.parametrize("told", [[], [3, 17, 40, 5]])
def test_a_batch_has_no_duplicates_and_no_labelled_row(name, told):
    evidence = evidence_of(0)
    for count in (1, 7, 60 - len(told)):
        found = ask(name, evidence, told, count, **HOW[name])
        assert found.shape == (count,) and found.dtype == np.int64
        assert len({*found.tolist()} - {*told}) == count
        np.testing.assert_array_equal(found, ask(name, evidence, told, count, **HOW[name]))


@pytest.mark.parametrize("name", HOW)
def test_equal_rows_and_certain_classes_end(name):
    """Where nothing tells rows apart, a batch is any other rows."""
    probs = np.tile(np.float32([1, 0]), (30, 1))
    flat = Evidence(probs, np.ones((30, 4), np.float32), probs[:, 0], {}, np.arange(0), 0.0, lambda x: probs[: len(x)])
    assert len({*ask(name, flat, [2], 8, **HOW[name]).tolist()} - {2}) == 8


@pytest.mark.parametrize("name", HOW)
def test_pick_knows_no_other_rows(name):
    evidence, told, left = evidence_of(1), np.array([40, 3]), np.arange(10, 30)
    found = queries.pick(lambda *a: getattr(queries, name)(*a, **HOW[name]), evidence, told, left, 6, _rng())
    assert {*found.tolist()} <= {*left.tolist()} and len(found) == 6
    changed = evidence.features.copy()
    changed[50:] = 9  # neither told nor left
    same = evidence._replace(features=changed)
    again = queries.pick(lambda *a: getattr(queries, name)(*a, **HOW[name]), same, told, left, 6, _rng())
    np.testing.assert_array_equal(found, again)
    with pytest.raises(ValueError, match=r"^count = 21: 20 rows are left to ask for$"):
        queries.pick(lambda *a: None, evidence, told, left, 21, _rng())
    with pytest.raises(ValueError, match="of which some are told or twice; must be 2 others"):
        queries.pick(lambda *a: np.array([1, 1]), evidence, told, left, 2, _rng())


def _rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", BY_PROBS)
def test_what_goes_by_probabilities_says_so(name):
    blank = of_features(evidence_of(0).features, np.array([4, 9]), np.array([1, 1]))
    assert blank.probs.shape == (60, 0)
    with pytest.raises(ValueError, match="takes labelled rows of two classes or more"):
        ask(name, blank, [4, 9], 3, **HOW[name])


def test_uncertainty_by_loops():
    evidence = evidence_of(2)
    told = [0, 1, 2]
    left = [row for row in range(60) if row not in told]
    p = evidence.probs.astype(np.float64)
    doubt = {row: -sum(v * math.log(v) for v in p[row]) for row in left}
    assert ask("entropy", evidence, told, 9).tolist() == sorted(left, key=lambda row: -doubt[row])[:9]
    gap = {row: sorted(p[row])[-1] - sorted(p[row])[-2] for row in left}
    assert ask("margin", evidence, told, 9).tolist() == sorted(left, key=lambda row: gap[row])[:9]


@pytest.mark.parametrize("told", [[], [7, 30]])
def test_k_centre_by_loops(told):
    evidence = evidence_of(3)
    x = evidence.features
    found = ask("k_centre", evidence, told, 8).tolist()
    covered = told or found[:1]
    for row in found if told else found[1:]:
        gap = [min(distance(each, x[other]) for other in covered) for each in x]
        assert row == int(np.argmax(gap))
        covered = [*covered, row]


@pytest.mark.parametrize("told", [[], [7, 30, 31]])
def test_typiclust_by_loops(told):
    evidence = evidence_of(4, rows=80)
    x = unit(evidence.features)
    cluster = clusters_of(x, min(len(told) + 6, 5)).labels_.tolist()
    found, taken = [], {c: sum(cluster[row] == c for row in told) for c in set(cluster)}
    size = {c: cluster.count(c) for c in taken}
    for _ in range(6):

        def order(c):
            rows = [row for row in range(80) if cluster[row] == c and row not in [*told, *found]]
            return (not rows, size[c] <= 5, taken[c], -size[c], c)

        chosen = min(taken, key=order)
        members = [row for row in range(80) if cluster[row] == chosen and row not in [*told, *found]]
        k = min(4, len(members) // 2)
        spread = {row: sum(sorted(distance(x[row], x[o]) for o in members if o != row)[:k]) for row in members}
        found.append(min(members, key=lambda row: spread[row]))
        taken[chosen] += 1
    assert ask("typiclust", evidence, told, 6, neighbours=4, max_clusters=5).tolist() == found


@pytest.mark.parametrize("told", [[], [7, 30, 31]])
def test_probcover_by_loops(told):
    """The radius by trying every distance that there is, the largest first, as a search would."""
    evidence = evidence_of(5)
    x = unit(evidence.features)
    cluster = clusters_of(x, 4).labels_
    gaps = [[distance(a, b) for b in x] for a in x]

    def pure(radius):
        balls = [[o for o in range(60) if gaps[row][o] < radius] for row in range(60)]
        return sum(len({cluster[o] for o in ball}) <= 1 for ball in balls) / 60

    radius = next(r for r in sorted({g for row in gaps for g in row}, reverse=True) if pure(r - 1e-9) >= 0.9)
    balls = [{o for o in range(60) if gaps[row][o] < radius - 1e-9 or o == row} for row in range(60)]
    covered = set().union(*(balls[row] for row in told))
    chosen = [*told]
    for row in ask("probcover", evidence, told, 7, clusters=4, purity=0.9).tolist():
        gain = {each: len(balls[each] - covered) for each in range(60) if each not in chosen}
        assert gain[row] == max(gain.values())
        covered |= balls[row]
        chosen.append(row)


def test_badge_by_loops():
    """The draws of k-means++ over gradients that are there in full."""
    evidence = evidence_of(6)
    told = [0, 1, 2]
    left = np.arange(3, 60)
    p = evidence.probs.astype(np.float64)
    gradients = []
    for row in left:
        error = [p[row, c] - (c == int(np.argmax(p[row]))) for c in range(4)]
        gradients.append([e * float(h) for e in error for h in evidence.features[row]])
    norms = [distance(g, [0] * 20) for g in gradients]
    found, rng = [int(np.argmax(norms))], np.random.default_rng(0)
    while len(found) < 8:
        weight = np.array([min(distance(g, gradients[o]) ** 2 for o in found) for g in gradients])
        found.append(int(rng.choice(len(left), p=weight / weight.sum())))
    assert ask("badge", evidence, told, 8).tolist() == left[found].tolist()


def test_dropquery_by_loops():
    evidence = evidence_of(7)
    rng = np.random.default_rng(0)
    left = rng.permutation(np.arange(2, 60))
    changed = dict.fromkeys(left.tolist(), 0)
    for _ in range(3):
        for row, kept in zip(left.tolist(), rng.random((58, 5), np.float32) >= 0.5, strict=True):
            dropped = np.array([[2 * v if k else 0 for v, k in zip(evidence.features[row], kept, strict=True)]])
            changed[row] += int(evidence.classify(dropped.astype(np.float32)).argmax() != evidence.probs[row].argmax())
    doubtful = [row for row in changed if changed[row] >= 2]
    assert 5 < len(doubtful) < 50
    doubtful.sort(key=lambda row: -changed[row])
    centroids = queries._kmeans(evidence.features[doubtful], 5, rng).cluster_centers_
    found = []
    for centroid in centroids:
        found.append(
            min((r for r in doubtful if r not in found), key=lambda r: distance(evidence.features[r], centroid))
        )
    assert ask("dropquery", evidence, [0, 1], 5, dropout=0.5, passes=3).tolist() == found


def test_clue_by_loops():
    evidence = evidence_of(8)
    left = list(range(2, 60))
    weight = []
    for row in left:
        powers = [float(v) ** 2 for v in evidence.probs[row]]  # temperature 0.5
        weight.append(-sum(v / sum(powers) * math.log(v / sum(powers)) for v in powers))
    means = clusters_of(evidence.features[left], 5, weight=np.array(weight) + 1e-8)
    found = []
    for centroid in means.cluster_centers_:
        found.append(min((r for r in left if r not in found), key=lambda r: distance(evidence.features[r], centroid)))
    assert ask("clue", evidence, [0, 1], 5, temperature=0.5).tolist() == found


def test_logistic_regression_by_its_slope():
    """The gradient of the penalised loss in float64, at what is found, is 0; and its scale says nothing."""
    rng = np.random.default_rng(0)
    x = (7 + 3 * rng.normal(size=(40, 3))).astype(np.float32)
    for classes in (2, 3):
        rows, labels = np.arange(0, 30, 2), np.arange(15) % classes + 4
        found = of_features(x, rows, labels)
        assert found.probs.shape == (40, classes) and found.rows.tolist() == rows.tolist()
        np.testing.assert_allclose(found.probs.sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(found.classify(x[5:9]), found.probs[5:9], rtol=1e-5)
        own = found.probs[rows, labels - 4].astype(np.float64)
        np.testing.assert_allclose(found.losses[rows], -np.log(own), rtol=1e-5)
        assert np.isnan(found.losses[1])
        z = x.astype(np.float64)[rows]
        z = (z - z.mean(0)) / math.sqrt(np.mean(np.sum((z - z.mean(0)) ** 2, 1)))
        error = found.probs[rows] - np.eye(classes)[labels - 4]
        logits = np.log(found.probs[rows].astype(np.float64))
        logits -= logits.mean(1, keepdims=True)
        weight = np.linalg.lstsq(np.concatenate([z, np.ones((15, 1))], 1), logits, rcond=None)[0][:3]
        # Of two classes scikit-learn has one vector of weights, the difference of two that are opposite.
        penalty = 1e-2 * weight * (2 if classes == 2 else 1)
        share = 1 / (classes * np.bincount(labels - 4)[labels - 4])[:, None]  # classes count alike
        np.testing.assert_allclose(z.T @ (share * error) + penalty, 0, atol=2e-4)
        np.testing.assert_allclose(of_features(100 * x, rows, labels).probs, found.probs, atol=1e-3)


def blobs(seed, sizes, apart=6.0, features=8):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    return (apart * np.eye(len(sizes), features)[label] + rng.normal(size=(len(label), features))), label


@pytest.mark.parametrize("name", ["typiclust", "probcover"])
def test_first_labels_meet_every_class_where_drawn_ones_miss_rare_ones(name):
    classes, drawn = [], []
    for seed in range(5):
        x, label = blobs(seed, [200, 200, 40, 40, 40])
        blank = of_features(x.astype(np.float32), np.arange(0), np.arange(0))
        how = HOW[name] | ({"clusters": 5} if name == "probcover" else {})
        classes.append(len({*label[ask(name, blank, [], 5, seed, **how)]}))
        drawn.append(len({*label[ask("uniform", blank, [], 5, seed)]}))
    assert min(classes) == 5 and np.mean(drawn) < 4


def test_typical_rows_are_no_outliers_where_farthest_ones_are():
    x, _ = blobs(0, [100, 100])
    x = np.concatenate([x, 40 * np.random.default_rng(1).normal(size=(10, 8))]).astype(np.float32)
    blank = of_features(x, np.arange(0), np.arange(0))
    far = ask("k_centre", blank, [0], 8)
    typical = ask("typiclust", blank, [0], 3, neighbours=20, max_clusters=500)
    assert (far >= 200).sum() >= 7 and (typical < 200).all()


@pytest.mark.parametrize("name", ["badge", "clue", "dropquery"])
def test_a_doubtful_batch_is_diverse_where_the_most_doubtful_rows_are_alike(name):
    """Three doubtful clumps, of which one is a little more so, and many certain rows: four of each ten, at least, in
    the other two, where entropy and margin take ten from one."""
    alike, diverse = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        centres = np.array([[0.02, 0, 5, 0], [0.1, 0, 0, 5], [0.1, 0, -5, -5], [4, 0, 0, 0], [-4, 0, 0, 0]])
        clump = np.repeat(np.arange(5), [40, 40, 40, 200, 200])
        x = (centres[clump] + [0.01, 0.2, 0.2, 0.2] * rng.normal(size=(520, 4))).astype(np.float32)

        def classify(x):
            return 1 / (1 + np.exp(-np.stack([x[:, 0], -x[:, 0]], 1) * 3))

        # Where the first feature is dropped nothing is left to tell by, so give dropout something else to go by.
        def dropped(x):
            return classify(x + 0.03 * x[:, 2:3] + 0.03 * x[:, 3:4])

        evidence = Evidence(classify(x), x, x[:, 0], {}, np.arange(0), 0.0, dropped)
        others = {}
        for query in ("margin", name):
            found = clump[ask(query, evidence, [], 10, seed, **HOW[query])]
            others[query] = ((found == 1) | (found == 2)).sum()
        alike.append(others["margin"])
        diverse.append(others[name])
    assert max(alike) == 0 and min(diverse) >= 3


@pytest.mark.parametrize("name", HOW)
def test_no_matrix_of_all_pairs(name):
    """9,000 rows, of which one would be 324 MB."""
    evidence = evidence_of(0, rows=9000, features=16)
    tracemalloc.start()
    ask(name, evidence, [1, 2], 5, **HOW[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 220e6
