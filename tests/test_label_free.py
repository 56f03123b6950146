"""Which rows are asked for, what was answered, and which answers are kept, before there is any label."""

import re

import numpy as np
import pytest

from labelfx import config as configs
from labelfx.graphs import Graph
from labelfx.labels import choose
from labelfx.labels.recorded import majority, read

NAN = np.nan


def write(path, **changes):
    """Two judges on four of six rows of three classes."""
    arrays = {
        "row": np.array([0, 0, 2, 2, 3, 5], np.int32),
        "judge": np.array([0, 1, 0, 1, 1, 0], np.int32),
        "vote": np.array([1, 1, 2, 0, -1, 2], np.int32),
        "confidence": np.array([0.5, NAN, 0.2, 0.6, 0.9, NAN], np.float32),
    }
    np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return path


def test_most_answers_are_the_label_and_how_sure_they_are_its_weight(tmp_path):
    votes = read(write(tmp_path / "votes.npz"), 6, 3)
    label, weight = majority(votes, 6, 3)
    np.testing.assert_array_equal(label, [1, -1, 0, -1, -1, 2])  # row 2 ties: the surer one
    np.testing.assert_allclose(weight, [0.5, 0, 0.6, 0, 0, 1], rtol=1e-6)
    assert label.dtype == np.int32 and weight.dtype == np.float32
    rng = np.random.default_rng(0)
    row, judge = np.divmod(rng.permutation(60), 3)
    vote, confidence = rng.integers(-1, 4, 60), np.where(rng.random(60) < 0.3, NAN, rng.random(60))
    label, weight = majority(type(votes)(row, judge, vote, confidence), 20, 4)
    for i in range(20):
        mine = [(v, c) for r, v, c in zip(row, vote, confidence, strict=True) if r == i and v >= 0]
        if not mine:
            assert label[i] == -1 and weight[i] == 0
            continue
        score = [(sum(v == c for v, _ in mine), np.nansum([p for v, p in mine if v == c]), -c) for c in range(4)]
        assert label[i] == -max(score)[2]
        sure = [p for v, p in mine if v == label[i] and p == p]
        assert weight[i] == pytest.approx(np.mean(sure) if sure else 1)


def test_answers_are_columns_of_the_chosen_rows(tmp_path, caplog):
    path = str(write(tmp_path / "votes.npz"))

    def say(rows):
        provided = dict(label=np.zeros(6, np.int32), rng=None, num_classes=3, rows=np.array(rows), inputs=None)
        return configs.build(configs.WEAK, {"name": "recorded", "path": path}, **provided, columns={}).columns

    columns = say([0, 2, 5])
    np.testing.assert_array_equal(columns["votes"], [[1, 1], [-1, -1], [2, 0], [-1, -1], [-1, -1], [2, -1]])
    assert columns["votes"].dtype == np.int8 and not caplog.records
    say([0, 5])
    assert caplog.records[0].getMessage() == f"{path}: no chosen row is named as class 0"
    with pytest.raises(ValueError, match="names no class for any of the 2 chosen rows"):
        say([1, 3])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"row": np.array([0, 0, 2, 2, 3, 6])}, "row lies in 0..6; allowed 0..5"),
        ({"vote": np.array([1, 1, 2, 3, -1, 2])}, "vote lies in -1..3; allowed -1..2"),
        ({"confidence": np.array([0.5, NAN, 0.2, 60, 0.9, NAN])}, "confidence lies in 0.2..60.0; allowed 0..1"),
        ({"confidence": np.ones(5)}, "must be of one length"),
        ({"confidence": np.ones(6, int)}, "the floats confidence must be"),
        ({"judge": np.array([0, 0, 0, 1, 1, 0])}, "judge 0 answers 2 times for row 0; number each as its own judge"),
        ({"judge": None}, "no array judge"),
        ({"vote": np.array([None] * 6)}, "nothing pickled"),
        ({"vote": np.ones(6)}, "vote is float64 [6]; must be integers of rank 1"),
    ],
)
def test_answers_that_cannot_be_used_are_named(tmp_path, changes, message):
    path = write(tmp_path / "votes.npz", **changes)
    with pytest.raises(ValueError, match=f"votes.npz.*{re.escape(message)}"):
        read(path, 6, 3)


def test_ranks_have_no_unit_and_ties_share_theirs():
    scores = np.array([0.1, 0.3, 0.2, 0.3]), np.array([4e6, 1e6, 3e6, 2e6])
    np.testing.assert_allclose(choose.rank_mean(scores, (1, 0)), [0.25, 0.875, 0.5, 0.875])
    np.testing.assert_allclose(choose.rank_mean(scores, (3, 1)), [0.4375, 0.71875, 0.5625, 0.78125])
    for weights in ((1,), (1, -1), (0, 0)):
        with pytest.raises(ValueError, match="must be 2 numbers from 0 up, not all 0"):
            choose.rank_mean(scores, weights)


def test_density_is_greatest_in_the_middle_of_a_cluster():
    centres = np.repeat([[0.0, 0], [50, 0], [0, 50]], 30, axis=0)
    features = centres + np.random.default_rng(0).normal(size=centres.shape)
    found = choose.density(features, 3, np.random.default_rng(0))
    means = np.repeat([features[i : i + 30].mean(0) for i in (0, 30, 60)], 30, axis=0)
    np.testing.assert_allclose(found, 1 / (1 + np.linalg.norm(features - means, axis=1)), rtol=1e-6)


def test_pagerank_is_the_stationary_walk():
    edges = np.array([[0, 1], [1, 0], [0, 2], [2, 0], [2, 3], [3, 2]], np.int32)
    graph = Graph(np.zeros((5, 1), np.uint8), edges)  # node 4 is alone
    walk = np.full((5, 5), 0.2)
    walk[:, :4] = 0
    for sender, receiver in edges:
        walk[receiver, sender] = 1 / (edges[:, 0] == sender).sum()
    limit = np.linalg.solve(np.eye(5) - 0.85 * walk, np.full(5, 0.15 / 5))
    found = choose.pagerank(graph, damping=0.85)
    np.testing.assert_allclose(found, limit, atol=1e-10)
    assert found.sum() == pytest.approx(1) and found.argmax() in (0, 2)


def test_what_is_filtered_out_is_unsure_and_common():
    votes, rng = np.array([0] * 12 + [1] * 4 + [2, -1]), np.random.default_rng(0)
    confidence = rng.random(len(votes))

    def entropy(rows):
        share = np.bincount(votes[rows]) / len(rows)
        return -sum(p * np.log(p) for p in share if p)

    left = list(np.flatnonzero(votes >= 0))
    while len(left) > 9:
        falls = np.array([entropy(left) - entropy([r for r in left if r != row]) for row in left]).round(12)
        ranks = [
            [np.mean([(other < each) + 0.5 * (other == each) for other in values]) for each in values]
            for values in (confidence[left], falls)
        ]
        left.pop(int(np.argmin(np.sum(ranks, axis=0))))
    np.testing.assert_array_equal(choose.diverse_filter(votes, confidence, 9), left)
    assert {0, 1, 2} == set(votes[left])
    alike = choose.diverse_filter(votes, np.full(len(votes), 0.7), 9)  # nobody is surer: the common go
    assert np.bincount(votes[alike]).tolist() == [4, 4, 1]
    with pytest.raises(ValueError, match="keep = 18: 17 of 18 rows were answered"):
        choose.diverse_filter(votes, confidence, 18)


def network(seed, nodes=300):
    """Two classes whose hubs lie between them: of features that are of no class, and with edges to both."""
    rng = np.random.default_rng(seed)
    label, hub = np.arange(nodes) % 2, np.arange(nodes) < nodes // 5
    features = rng.normal(size=(nodes, 6))
    features[:, 0] += np.where(hub, 0.0, 4.0) * (2 * label - 1)
    weight = np.where(hub, 4.0, 1.0)
    same = np.where(hub[:, None] | hub[None], 0.5, np.where(label[:, None] == label[None], 0.95, 0.05))
    linked = rng.random((nodes, nodes)) < 0.016 * weight[:, None] * weight[None] * same
    pairs = np.argwhere(np.triu(linked, 1))
    return Graph(features.astype(np.float32), np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int32)), label, rng


def propagated_accuracy(graph, label, rows, votes):
    """Of a graph convolution without a hidden layer (Wu et al. 2019), by ridge regression on the votes."""
    adjacency = np.eye(graph.num_nodes)
    adjacency[graph.edges[:, 1], graph.edges[:, 0]] = 1
    scale = adjacency.sum(1) ** -0.5
    spread = scale[:, None] * adjacency * scale[None]
    z = spread @ (spread @ graph.features)
    weights = np.linalg.solve(z[rows].T @ z[rows] + 1e-2 * np.eye(z.shape[1]), z[rows].T @ (2 * votes - 1))
    return np.mean((z @ weights > 0) == label)


def test_easy_central_nodes_are_worth_more_than_hubs_on_the_border():
    """24 answers of an annotator who knows the nodes that are typical of their cluster and guesses at the others: those
    chosen by density and PageRank beat random ones, and by far those by PageRank alone, hubs that nobody can name."""
    found = {"random": [], "pagerank": [], "both": []}
    for seed in range(6):
        graph, label, rng = network(seed)
        typical = choose.density(graph.features, 2, rng)
        central = choose.pagerank(graph, damping=0.85)
        knows = np.clip(2.5 * choose.rank_mean((typical,), (1,)) - 0.75, 0, 1) > rng.random(len(label))
        answers = np.where(knows, label, rng.integers(0, 2, len(label)))
        both = choose.rank_mean((typical, central), (0.5, 0.5))
        for name, score in (
            *[("random", rng.random(len(label))) for _ in range(4)],
            ("pagerank", central),
            ("both", both),
        ):
            rows = np.argsort(-score)[:24]
            found[name].append(propagated_accuracy(graph, label, rows, answers[rows]))
    random, pagerank, both = (np.mean(found[name]) for name in ("random", "pagerank", "both"))
    assert both > random + 0.04 and both > pagerank + 0.15
