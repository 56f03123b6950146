"""Miners that search: mined negatives, their curriculum, communities; on planted classes, whatever a row is."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from recipes import tiny

import labelfx
from labelfx.config import ConfigError
from labelfx.data import Split, miners
from labelfx.data.batches import batch_at, label_view
from labelfx.data.miners import communities, curriculum, mined, ngame, uniform
from labelfx.mining import rules
from labelfx.models import Model

COARSE, FINE, ROWS = 6, 5, 8
IDENTITY = Model(lambda rng, x: {}, lambda variables, x, *, train: (x, {}))


def planted(seed):
    """Rows [240, 16] of six coarse classes of five fine ones of eight rows, and their fine class."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(COARSE, 1, 16)) + 0.7 * rng.normal(size=(COARSE, FINE, 16))
    fine = rng.permutation(np.repeat(np.arange(COARSE * FINE), ROWS))
    return (centres.reshape(-1, 16)[fine] + 0.25 * rng.normal(size=(len(fine), 16))).astype(np.float32), fine


def noise(rng, x):
    return x + 0.25 * jax.random.normal(rng, x.shape)


def table_of(miner, rows, seed=0, progress=0.0):
    return miner.refresh({}, Split(rows, np.zeros(len(rows), np.int32)), np.random.default_rng(seed), progress)


def with_rule(rule, count=3, candidates=239, augment=noise, **settings):
    def selection(rng, found, count):
        return rule(rng, found, count, **settings)

    return mined(IDENTITY, augment=augment, candidates=candidates, negatives_per_anchor=count, selection=selection)


def cosines(rows):
    rows = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T - 9 * np.eye(len(rows))  # a row itself comes last


def batches_of(miner, table, fine, size=30, steps=40):
    view = label_view(Split(np.zeros((len(fine), 1), np.uint8), fine.astype(np.int32)), np.arange(2))
    how = {"view": view, "sizes": {"labelled": 0, "unlabelled": size}, "seed": 3, "miner": miner, "table": table}
    return [batch_at(step, **how)["unlabelled"]["index"] for step in range(steps)]


def shares(batches, fine):
    """Of pairs in a batch: those of one coarse class and different fine ones, and those of one fine class."""
    pairs = np.concatenate([list(itertools.combinations(fine[batch], 2)) for batch in batches])
    same = pairs[:, 0] == pairs[:, 1]
    return ((pairs[:, 0] // FINE == pairs[:, 1] // FINE) & ~same).mean(), same.mean()


def assert_margin(left, right, errors=3):
    difference = np.array(left) - np.array(right)
    error = difference.std(ddof=1) / len(difference) ** 0.5
    print(f"margin {difference.mean():.4f} +- {error:.4f}")
    assert difference.mean() > errors * error


def test_the_most_similar_are_found():
    rows, _ = planted(0)
    table = table_of(with_rule(rules.top, candidates=50), rows)
    np.testing.assert_array_equal(table["negatives"], np.argsort(-cosines(rows), axis=1, kind="stable")[:, :3])
    assert table["negatives"].dtype == np.int32


def test_a_batch_is_anchors_and_their_negatives():
    rows, fine = planted(0)
    miner = with_rule(rules.top)
    table = table_of(miner, rows)
    batches = batches_of(miner, table, fine)
    for drawn, batch in zip(batches_of(uniform(), {}, fine), batches, strict=True):
        assert len(batch) == len(set(batch)) == 30
        np.testing.assert_array_equal(batch[:8], drawn[:8])
        wanted = set(table["negatives"][drawn[:8]].ravel())
        assert len(wanted - set(batch)) <= 2  # eight anchors and three for each are two more than there is room for
        rest = [row for row in batch[8:] if row not in wanted]
        assert rest == [row for row in drawn[8:] if row in rest]  # spare rows in their order
        assert not rest or wanted <= set(batch)
    for one, other in zip(batches, batches_of(miner, table, fine), strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_a_rule_leaves_none_the_drawn_rows_stay():
    rows, fine = planted(0)
    miner = with_rule(rules.margin_pos, margin=2.0)
    table = table_of(miner, rows)
    assert (table["negatives"] == -1).all()
    for drawn, batch in zip(batches_of(uniform(), {}, fine), batches_of(miner, table, fine), strict=True):
        np.testing.assert_array_equal(drawn, batch)
    # Six rows of a pass and four of the next: where one comes twice there are not enough others.
    small = {"negatives": table["negatives"][:6]}
    assert all(len(batch) == 6 for batch in batches_of(miner, small, fine[:6], size=6, steps=5))
    assert all(len(batch) == 4 for batch in batches_of(miner, small, fine[:6], size=4, steps=5))


def test_of_pairs_the_first_searches_among_the_second():
    rows, _ = planted(0)
    rng = np.random.default_rng(1)
    pairs = rng.permutation(480).reshape(240, 2)  # which embedding each side has
    table = np.concatenate([rows, rows[::-1] + 0.1])
    embed = Model(lambda rng, x: {}, lambda variables, x, *, train: (jnp.asarray(table)[x[:, 0]], {}))
    tokens = np.stack([pairs, np.zeros_like(pairs)], -1).astype(np.int32)
    seen = []

    def selection(rng, found, count):
        seen.append(np.asarray(found.positive_scores))
        return rules.top(rng, found, count)

    unit = table.astype(np.float64) / np.linalg.norm(table.astype(np.float64), axis=1, keepdims=True)
    scores = unit[pairs[:, 0]] @ unit[pairs[:, 1]].T
    miner = mined(embed, augment=noise, candidates=239, negatives_per_anchor=3, selection=selection)
    found = table_of(miner, tokens)["negatives"]
    np.testing.assert_array_equal(found, np.argsort(-scores + 9 * np.eye(240), axis=1, kind="stable")[:, :3])
    np.testing.assert_allclose(seen[0], np.diagonal(scores), atol=1e-5)


def test_positive_scores_are_those_of_another_view():
    rows, _ = planted(0)
    seen = []

    def selection(rng, found, count):
        seen.append(np.asarray(found.positive_scores))
        return rules.top(rng, found, count)

    for augment in (lambda rng, x: x, noise, lambda rng, x: -x):
        keys = {"candidates": 9, "negatives_per_anchor": 2, "selection": selection}
        table_of(mined(IDENTITY, augment=augment, **keys), rows)
    np.testing.assert_allclose(seen[0], 1, rtol=1e-6)
    assert 0.9 < seen[1].mean() < 0.99
    np.testing.assert_allclose(seen[2], -1, rtol=1e-6)


def test_mined_batches_hold_hard_pairs_and_rules_keep_the_false_ones_out():
    """Planted classes, seeds 0 to 9, equal batches. Shuffled batches have few pairs of one coarse class; the most
    similar rows are many more, but mostly false negatives, of the same fine class; the rules that look at the positive
    have more hard pairs than shuffling and fewer false ones than the most similar."""
    found = {"uniform": [], "top": [], "simans": [], "margin_pos": [], "perc_pos": []}
    miner_of = {
        "top": with_rule(rules.top),
        "simans": with_rule(rules.simans, a=100.0, b=-0.3),
        "margin_pos": with_rule(rules.margin_pos, margin=0.2),
        "perc_pos": with_rule(rules.perc_pos, percentage=0.8),
    }
    for seed in range(10):
        rows, fine = planted(seed)
        found["uniform"].append(shares(batches_of(uniform(), {}, fine), fine))
        for name, miner in miner_of.items():
            found[name].append(shares(batches_of(miner, table_of(miner, rows, seed), fine), fine))
    hard, false = ({name: [each[i] for each in found[name]] for name in found} for i in range(2))
    for name in ("simans", "margin_pos", "perc_pos"):
        assert_margin(hard[name], np.array(hard["uniform"]) + 0.02)
        assert_margin(false["top"], np.array(false[name]) + 0.02)
    assert_margin(false["top"], 2 * np.array(false["uniform"]))


def test_a_curriculum_of_rising_hardness():
    """The negatives of each level are at its percentile; their similarity rises with the progress of the phase."""
    rows, _ = planted(0)
    order = np.argsort(-cosines(rows), axis=1, kind="stable")[:, :-1]
    levels = {"first": 0.2, "last": 0.8, "levels": 4}
    miner = curriculum(IDENTITY, candidates=500, negatives_per_anchor=3, **levels)
    similarity = []
    for progress, tau in ((0.0, 0.2), (0.24, 0.2), (0.25, 0.4), (0.5, 0.6), (0.75, 0.8), (0.99, 0.8)):
        table = table_of(miner, rows, progress=progress)
        hardest = 239 - int(tau * 239 + 1e-9)
        np.testing.assert_array_equal(table["negatives"], order[:, hardest : hardest + 3])
        similarity.append(np.take_along_axis(cosines(rows), table["negatives"], axis=1).mean())
    assert similarity[0] == similarity[1] < similarity[2] < similarity[3] < similarity[4] == similarity[5]


def graph_of(rows, skip, neighbours):
    """The graph by loops."""
    graph = np.zeros((len(rows), len(rows)))
    for i, order in enumerate(np.argsort(-cosines(rows), axis=1, kind="stable")):
        for j in order[skip : skip + neighbours]:
            graph[i, j] = graph[j, i] = 1
    return graph


def test_the_graph_of_the_next_but_nearest():
    rows, _ = planted(0)
    np.testing.assert_array_equal(miners._graph(rows, 4, 10).toarray(), graph_of(rows, 4, 10))
    everything = miners._graph(rows, 4, 1000).toarray()
    np.testing.assert_array_equal(everything, graph_of(rows, 4, 235))
    with pytest.raises(ValueError, match="skip = 239: must be less than the 239 other rows"):
        miners._graph(rows, 239, 1)


@pytest.mark.parametrize("dense", [2, 64])
def test_cuts_find_planted_communities(dense, monkeypatch):
    """Eight groups of 20 rows, joined within at 0.6 and between at 0.03, seeds 0 to 9. At random a pair of one group
    stays together at 0.12, and by the median of the eigenvector alone at 0.69: groups at the median are cut."""
    monkeypatch.setattr(miners, "DENSE", dense)
    kept = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        group = rng.permutation(np.repeat(np.arange(8), 20))
        joined = rng.random((160, 160)) < np.where(group[:, None] == group, 0.6, 0.03)
        graph = scipy.sparse.csr_array(np.triu(joined, 1) * 1.0)
        graph = graph + graph.T
        table = miners._halved(160, 20, lambda part: miners._cut(graph[part][:, part], rng))  # noqa: B023
        assert (np.bincount(table["cluster"]) == 20).all() and sorted(table["order"]) == list(range(160))
        kept.append((table["cluster"][:, None] == table["cluster"])[group[:, None] == group].mean())
    assert_margin(kept, np.full(10, 0.8))


def test_graphs_in_pieces_are_cut_too():
    """Rows without an edge, and two components."""
    blocks = np.kron(np.eye(2), np.ones((6, 6))) - np.eye(12)
    for graph in (np.zeros((7, 7)), blocks, np.zeros((2, 2))):
        halves = miners._cut(scipy.sparse.csr_array(graph), np.random.default_rng(0))
        assert sorted(np.concatenate(halves)) == list(range(len(graph))) and len(halves[0]) - len(halves[1]) in (0, 1)
    halves = miners._cut(scipy.sparse.csr_array(blocks), np.random.default_rng(0))
    assert {tuple(sorted(half)) for half in halves} == {tuple(range(6)), tuple(range(6, 12))}


@pytest.mark.parametrize("blank", [300, 700])
def test_communities_of_rows_that_are_alike(blank):
    """More of them than are looked through without ARPACK, and joined to none."""
    rows = np.random.default_rng(0).normal(size=(700, 8))
    rows[:blank] = rows[0] if blank == 300 else 0
    graph = miners._graph(rows, 30, 20)
    table = miners._halved(700, 32, lambda part: miners._cut(graph[part][:, part], np.random.default_rng(0)))
    assert sorted(table["order"]) == list(range(700)) and np.bincount(table["cluster"]).max() <= 32


def test_batches_of_communities_are_hard_and_skip_the_false():
    """Planted classes, seeds 0 to 9, equal batches. Communities of the graph put more hard pairs into a batch than
    shuffling does, and without the nearest rows in the graph fewer false ones than clusters of the nearest rows."""
    hard, false = {}, {}
    for seed in range(10):
        rows, fine = planted(seed)
        for name, miner in (
            ("uniform", uniform()),
            ("communities", communities(IDENTITY, skip=8, neighbours=20, community_size=15)),
            ("ngame", ngame(IDENTITY, cluster_size=15)),
        ):
            table = table_of(miner, rows, seed) if miner.refresh else {}
            batches = batches_of(miner, table, fine)
            assert all(len(set(batch)) == len(batch) == 30 for batch in batches)
            for found, value in zip((hard, false), shares(batches, fine), strict=True):
                found.setdefault(name, []).append(value)
    assert_margin(hard["communities"], np.array(hard["uniform"]) + 0.05)
    assert_margin(false["ngame"], np.array(false["communities"]) + 0.02)


def test_a_row_may_be_anything_that_the_model_takes():
    """Rows of tokens, of which a model makes the same points, have the same tables."""
    rows, _ = planted(0)
    points = jnp.asarray(rows)
    of_tokens = Model(lambda rng, x: {}, lambda variables, x, *, train: (points[x[:, 0] * 10 + x[:, 1]], {}))
    tokens = np.stack([np.arange(240) // 10, np.arange(240) % 10], axis=1).astype(np.int32)

    def both(build, **settings):
        return table_of(build(IDENTITY, **settings), rows), table_of(build(of_tokens, **settings), tokens)

    pick = {"candidates": 20, "negatives_per_anchor": 3}
    tables = [
        both(mined, augment=lambda rng, x: x, selection=rules.top, **pick),
        both(curriculum, first=0.3, last=0.8, levels=6, **pick),
        both(communities, skip=2, neighbours=10, community_size=8),
        both(ngame, cluster_size=8),
    ]
    for one, other in tables:
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_run_raises_the_hardness(tmp_path, monkeypatch):
    """Three refreshes at 0, 1/3 and 2/3 of the steps, whose tables are those of the checkpointed run."""
    taus, real = [], rules.percentile

    def recorded(rng, found, count, *, tau):
        taus.append(tau)
        return real(rng, found, count, tau=tau)

    monkeypatch.setattr(rules, "percentile", recorded)
    config = tiny("curriculum_negatives", refresh_every=2, model={"name": "mlp", "hidden": (4,), "dtype": "float32"})
    config["method"]["augment"] = {"name": "identity"}
    config["batches"] |= {"candidates": 100, "first": 0.25, "last": 0.75, "levels": 3}
    results = labelfx.train(config, tmp_path / "run")
    assert taus == [0.25, 0.5, 0.75] and results["training"]["compilations"] == 1
    config["batches"] |= {"candidates": 2}
    with pytest.raises(ConfigError, match="config.batches: negatives_per_anchor = 3: must be at most candidates = 2"):
        labelfx.train(config, tmp_path / "other")
    band = {"name": "runner_up", "first": 0.03, "last": 0.04}
    config["batches"] = {"name": "mined", "augment": {"name": "identity"}, "selection": band} | {
        "candidates": 9,
        "negatives_per_anchor": 3,
    }
    with pytest.raises(ConfigError, match="config.batches: runner_up: 0.04 of 1415 rows needs 56 candidates, not 9"):
        labelfx.train(config, tmp_path / "other")


def test_what_the_experiment_counts():
    """Of the rows of a query's coarse class a tenth are false; of four places, two hard and one false."""
    from experiments import miners as experiment

    data = experiment.planted(0, 0.35)
    coarse = np.arange(160)[:, None] // 10 == data.fine // 10
    assert ((np.arange(160)[:, None] == data.fine).sum(axis=1) == 0.1 * coarse.sum(axis=1)).all()
    chosen = np.where(np.arange(4) == 3, -1, 20 * (np.arange(160)[:, None] // 10 * 10) + np.array([0, 20, 40, 0]))
    hard = [{0: 2, 1: 2, 2: 2}.get(query % 10, 3) for query in range(160)]
    false = [3 - count for count in hard]
    expected = sum(hard) / (4 * 160), sum(false) / (3 * 160)
    np.testing.assert_allclose(experiment.judge(chosen, data.fine), expected)
    np.testing.assert_array_equal(experiment.judge(np.full((160, 4), -1), data.fine), 0)
