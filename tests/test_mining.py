"""Similarity search and hard negatives: against NumPy, on planted classes, and as a command on files."""

import itertools
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from labelfx.config import ConfigError
from labelfx.loop.mesh import make_mesh, split_rows
from labelfx.mine import mine
from labelfx.mining import negatives, rules, search
from labelfx.mining.search import top_k

RNG = np.random.default_rng(0)
# Small integers: products and sums are exact in any order, and ties abound.
QUERIES, INDEX = (RNG.integers(-2, 3, (rows, 4)).astype(np.float32) for rows in (7, 104))


def brute_force(queries, index, k, exclude=None):
    """Scores and indices by a stable argsort of every score, in float64."""
    scores = queries.astype(np.float64) @ index.astype(np.float64).T
    for row, rows in enumerate([] if exclude is None else exclude):
        scores[row, rows[rows >= 0]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(scores, order, axis=1)
    return scores, np.where(scores == -np.inf, -1, order)


def assert_same(actual, expected):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)


@pytest.mark.parametrize("block", [5, 16, 1000])
@pytest.mark.parametrize("split", [None, (8, 1), (8, 2)])
def test_top_k_is_a_stable_argsort(split, block):
    mesh = split and make_mesh(*split)
    rows = jax.device_put(INDEX, split_rows(mesh)) if mesh else jnp.asarray(INDEX)
    for index in (INDEX[:103], rows):
        before = search._search._cache_size()
        found = top_k(QUERIES, index, 100, similarity="inner", mesh=mesh, block=block)
        assert_same(found, brute_force(QUERIES, np.asarray(index), 100))
        assert search._search._cache_size() <= before + 1  # however many blocks, and the last one uneven
    assert found[0].dtype == jnp.float32 and found[1].dtype == jnp.int32


def test_more_queries_than_a_block_takes(monkeypatch):
    monkeypatch.setattr(search, "QUERIES", 3)
    queries = np.concatenate([QUERIES, -QUERIES])
    exclude = np.arange(len(queries))[:, None]
    found = top_k(queries, INDEX[:101], 6, similarity="inner", exclude=exclude, block=11)
    assert_same(found, brute_force(queries, INDEX[:101], 6, exclude))


def test_memmap(tmp_path):
    np.save(tmp_path / "index.npy", INDEX)
    index = np.load(tmp_path / "index.npy", mmap_mode="r", allow_pickle=False)
    found = top_k(QUERIES, index, 9, similarity="inner", mesh=make_mesh(8, 1), block=4)
    assert_same(found, brute_force(QUERIES, INDEX, 9))


def test_exclusions():
    own = np.arange(len(INDEX))[:, None]
    found = top_k(INDEX, INDEX, 10, similarity="inner", exclude=own, block=30)
    assert_same(found, brute_force(INDEX, INDEX, 10, own))
    lists = np.where(RNG.random((7, 15)) < 0.5, RNG.integers(0, 20, (7, 15)), -1)
    for k in (3, 20):  # of 20 rows: all that are left, then -inf and -1
        found = top_k(QUERIES, INDEX[:20], k, similarity="inner", exclude=lists, mesh=make_mesh(8, 1), block=2)
        assert_same(found, brute_force(QUERIES, INDEX[:20], k, lists))
    assert (found[1] == -1).any(axis=1).all()


def test_precision():
    queries, index = (RNG.normal(size=(rows, 300)) for rows in (5, 200))
    queries[2], index[3] = 0, 0
    with jax.enable_x64(True):
        scores, indices = top_k(queries, index, 50, similarity="cosine", block=64)
    expected, order = brute_force(unit(queries), unit(index), 50)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(indices, order)
    scores, _ = top_k(queries, index, 50, similarity="cosine", block=64)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=5e-7)
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in (queries, index)]
    scores, _ = top_k(*narrow, 50, similarity="inner", block=64)
    assert scores.dtype == np.float32
    expected, _ = brute_force(*(np.asarray(x, np.float64) for x in narrow), 50)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


def test_never_every_score_at_once():
    """Of 8,192 queries and 65,536 rows, 2 GB of scores: 256 x 1,024 at a time, and products of full precision."""
    mesh = make_mesh(1, 1)
    best = jnp.zeros((8192, 8)), jnp.zeros((8192, 8), jnp.int32)
    arguments = best, jnp.zeros((8192, 4)), jnp.zeros((65536, 4)), np.int32(0), np.int32(65536)
    lowered = search._search.lower(*arguments, mesh=mesh, block=256, cosine=False)
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 3 * 256 * 1024 * 4
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert products and all("precision = [HIGHEST, HIGHEST]" in line for line in products)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"queries": QUERIES[0]}, r"queries must be float \[rows, D\], .* not float32 \[4\]"),
        ({"index": INDEX.astype(np.int32)}, "index must be float .* not int32"),
        ({"index": INDEX[:0]}, r"none of them 0, not float32 \[0, 4\]"),
        ({"index": INDEX[:, :3]}, "queries have 4 dimensions and the index 3"),
        ({"k": 105}, "k = 105: must be from 1 to the 104 rows"),
        ({"k": 0}, "k = 0"),
        ({"block": 0}, "block = 0"),
        ({"similarity": "dot"}, "'dot': must be 'cosine' or 'inner'"),
        ({"exclude": np.zeros((6, 1), int)}, r"exclude must be int \[7, E\], not int64 \[6, 1\]"),
        ({"exclude": np.zeros((7, 104), bool)}, "exclude must be int .* not bool"),
        ({"index": jnp.asarray(INDEX[:100]), "mesh": (8, 1)}, "8 devices of the mesh must divide the 100 rows"),
    ],
)
def test_bad_arguments(changes, message):
    arguments = {"queries": QUERIES, "index": INDEX, "k": 3, "similarity": "inner"} | changes
    if "mesh" in changes:
        arguments["mesh"] = make_mesh(*changes["mesh"])
    with pytest.raises(ValueError, match=message):
        top_k(**arguments)


def test_simans_is_the_papers_formula():
    positive, scores = RNG.normal(size=3), 10 * RNG.normal(size=(3, 5))
    scores[1, 2] = -np.inf
    expected = [[-0.5 * (s - p - 0.25) ** 2 for s in row] for p, row in zip(positive, scores, strict=True)]
    with jax.enable_x64(True):
        actual = negatives.simans_log_weights(jnp.asarray(positive), jnp.asarray(scores), a=0.5, b=0.25)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    flat = negatives.simans_log_weights(jnp.asarray(positive), jnp.asarray(scores), a=0.0, b=0.25)
    np.testing.assert_array_equal(flat, np.where(scores == -np.inf, -np.inf, 0))
    narrow = negatives.simans_log_weights(jnp.bfloat16(1), jnp.ones(3, jnp.bfloat16), a=0.5, b=0.0)
    assert narrow.dtype == jnp.float32


def test_far_off_scores_are_still_sampled_by_their_weights():
    """exp of these weights is 0 in any precision, and Gumbel noise is less than the rounding error of -5e9."""
    scores = jnp.asarray([[-1e5, -2e5, -1e5, -1e5]])
    log_weights = negatives.simans_log_weights(jnp.zeros(1), scores, a=0.5, b=0.0)
    assert (np.exp(np.float64(log_weights)) == 0).all() and np.isfinite(log_weights).all()
    drawn = negatives.sample(jax.random.key(0), jnp.broadcast_to(log_weights, (3000, 4)), 1)
    counts = np.bincount(np.asarray(drawn[:, 0]), minlength=4)
    assert counts[1] == 0 and abs(counts - 1000)[[0, 2, 3]].max() < 130  # 5 sd


def test_sampling_is_without_replacement_and_proportional():
    weights, draws = np.array([0.1, 0.0, 0.5, 0.3, 0.1]), 40000
    log_weights = jnp.asarray([math.log(7 * w) if w else -math.inf for w in weights])
    drawn = np.asarray(negatives.sample(jax.random.key(1), jnp.broadcast_to(log_weights, (draws, 5)), 2))
    for first, second in itertools.product(range(5), repeat=2):
        expected = 0 if first == second else weights[first] * weights[second] / (1 - weights[first])
        found = (drawn == [first, second]).all(axis=1).mean()
        assert abs(found - expected) <= 4.5 * math.sqrt(expected / draws)  # which forbids what has no weight
    everything = np.asarray(negatives.sample(jax.random.key(2), log_weights, 5))
    assert sorted(everything) == [-1, 0, 2, 3, 4] and everything[-1] == -1
    nothing = negatives.sample(jax.random.key(3), jnp.full((2, 3), -jnp.inf), 2)
    np.testing.assert_array_equal(nothing, -1)


def test_hardest():
    scores = jnp.asarray([[1.0, 3.0, -jnp.inf, 3.0], [-jnp.inf, -jnp.inf, 0.0, -jnp.inf]])
    np.testing.assert_array_equal(negatives.hardest(scores, 3), [[1, 3, 0], [2, -1, -1]])


def test_positive_aware_thresholds():
    positive, scores = jnp.asarray([0.8, -0.5]), jnp.asarray([[0.6, 0.59, 0.9, 0.4], [-0.5, -0.7, -0.45, -0.3]])
    keep = negatives.margin_pos(positive, scores, margin=0.125)
    np.testing.assert_array_equal(keep, [[True, True, False, True], [False, True, False, False]])
    keep = negatives.perc_pos(positive, scores, percentage=0.75)
    np.testing.assert_array_equal(keep, [[False, True, False, True], [True, True, True, False]])
    equal = jnp.asarray([[0.8], [-0.5]])  # a copy of the positive is not below it
    assert not negatives.margin_pos(positive, equal, margin=0.0).any()
    assert not negatives.perc_pos(positive, equal, percentage=1.0).any()


def test_runner_up():
    for rows in (100, 777):
        ranks = list(range(rows))[: int(0.04 * rows)][int(0.03 * rows) :]  # as the authors slice their list
        keep = negatives.runner_up(60, rows, first=0.03, last=0.04)
        np.testing.assert_array_equal(np.flatnonzero(keep), ranks)
    with pytest.raises(ValueError, match="0.04 of 2000 rows needs 80 candidates, not 60"):
        negatives.runner_up(60, 2000, first=0.03, last=0.04)
    with pytest.raises(ValueError, match="no rank of 20 rows lies from 0.03 to 0.04"):
        negatives.runner_up(20, 20, first=0.03, last=0.04)


def test_cluster_negatives():
    embeddings, centroids = RNG.normal(size=(6, 3)), RNG.normal(size=(4, 3))
    order = [sorted(range(4), key=lambda c: -unit(e) @ unit(centroids[c])) for e in embeddings]
    hard, false = negatives.cluster_negatives(embeddings, centroids)
    np.testing.assert_array_equal(hard, [row[1] for row in order])
    expected = [[i != j and a[0] == b[0] for j, b in enumerate(order)] for i, a in enumerate(order)]
    np.testing.assert_array_equal(false, expected)
    assert false.any()
    with pytest.raises(ValueError, match="at least 2 centroids"):
        negatives.cluster_negatives(embeddings, centroids[:1])


def found_in(queries, index, positive_scores=None):
    scores, rows = top_k(queries, index, len(index), similarity="cosine")
    return rules.Found(queries, index, rows, scores, positive_scores)


def test_percentiles():
    scores = jnp.asarray([np.arange(10.0)[::-1], [9, 8, 7, *[-np.inf] * 7]])
    found = rules.Found(None, None, None, scores, None)
    for tau, expected in ((0.3, [7, 8]), (0.8, [2, 3]), (1.0, [0, 1]), (0.1, [9, -1]), (0.0, [-1, -1])):
        np.testing.assert_array_equal(rules.percentile(None, found, 2, tau=tau)[0], expected)
    np.testing.assert_array_equal(rules.percentile(None, found, 2, tau=0.8)[1], [2, -1])


def test_simans_takes_those_nearest_to_the_positive():
    scores, positive = jnp.asarray(np.sort(RNG.normal(size=(5, 20)))[:, ::-1]), jnp.asarray(RNG.normal(size=5))
    found = rules.Found(None, None, None, scores, positive)
    chosen = rules.simans(jax.random.key(0), found, 1, a=1e9, b=0.1)
    np.testing.assert_array_equal(chosen[:, 0], np.argmin(np.abs(scores - positive[:, None] - 0.1), axis=1))


def test_second_cluster():
    """Four directions at 0, 40, 130 and 180 degrees: of 0, 40 is second; of 130, 180; and the other way round."""
    degrees = np.repeat([0.0, 40.0, 130.0, 180.0], [9, 7, 8, 6]) + np.linspace(-3, 3, 30)
    index = np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], -1).astype(np.float32)
    index *= np.linspace(0.1, 10, 30, dtype=np.float32)[::-1, None]  # lengths do not count
    group = np.repeat(np.arange(4), [9, 7, 8, 6])
    found = found_in(index, index)
    chosen = np.asarray(rules.second_cluster(jax.random.key(0), found, 8, clusters=4))
    for row, places in enumerate(chosen):
        there = places[places >= 0]
        second = [1, 0, 3, 2][group[row]]
        everyone = set(np.flatnonzero(group == second))
        assert len(there) == min(8, len(everyone)) and set(np.asarray(found.rows)[row, there]) <= everyone


def planted(seed):
    """Eight coarse classes of ten fine ones each, of which there are a query and ten rows, the first its positive: of
    the 100 rows of a query's coarse class, a tenth are of its fine class, and as negatives they are false."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(8, 1, 32))
    centres = (coarse + 0.7 * rng.normal(size=(8, 10, 32))).reshape(80, 32)
    fine = np.repeat(np.arange(80), 10)
    index = centres[fine] + 0.35 * rng.normal(size=(800, 32))
    queries = centres + 0.35 * rng.normal(size=(80, 32))
    return queries.astype(np.float32), index.astype(np.float32), fine, 10 * np.arange(80)


@pytest.mark.parametrize("seed", range(3))
def test_rules_find_hard_negatives_that_are_not_false(seed, tmp_path):
    queries, index, fine, positives = planted(seed)
    for name, array in (("queries", queries), ("index", index), ("positives", positives)):
        np.save(tmp_path / name, array)
    files = [tmp_path / f"{name}.npy" for name in ("queries", "index", "positives")]
    rules = {
        "uniform": {"rule": "simans", "a": 0.0, "b": 0.0, "candidates": 800},
        "top": {"rule": "top", "candidates": 100},
        "simans": {"rule": "simans", "a": 30.0, "b": -0.2, "candidates": 100},
        "margin_pos": {"rule": "margin_pos", "margin": 0.1, "candidates": 100},
        "perc_pos": {"rule": "perc_pos", "percentage": 0.9, "candidates": 100},
    }
    false, hard = {}, {}
    for name, settings in rules.items():
        content = mine(*files, tmp_path / "out.npz", similarity="cosine", count=16, seed=seed, **settings)
        chosen = content["indices"]
        assert (chosen >= 0).all() and not (chosen == positives[:, None]).any()
        same = fine[chosen] == np.arange(80)[:, None]
        false[name] = same.mean()
        hard[name] = (~same & (fine[chosen] // 10 == np.arange(80)[:, None] // 10)).mean()
    assert abs(false["uniform"] - 9 / 799) < 0.01 and abs(hard["uniform"] - 90 / 799) < 0.03
    assert false["top"] == 9 / 16 and 0.4 < hard["top"] <= 7 / 16  # the false ones all come first
    assert false["simans"] < 0.1 and hard["simans"] > 0.9
    for rule in ("margin_pos", "perc_pos"):
        assert false[rule] < false["simans"] - 0.01 and hard[rule] > hard["simans"] + 0.01


@pytest.fixture
def files(tmp_path):
    def save(**arrays):
        arrays = {"queries": QUERIES, "index": INDEX, "positives": np.arange(7)} | arrays
        for name, array in arrays.items():
            np.save(tmp_path / name, array)
        return [tmp_path / f"{name}.npy" for name in ("queries", "index", "positives")] + [tmp_path / "out.npz"]

    return save


TOP = {"similarity": "inner", "candidates": 9, "count": 4, "rule": "top", "seed": 0}


def test_no_positive_is_mined(files):
    """Rows of an index as its own queries, with lists of positives: of nine candidates, those that are no positives."""
    positives = np.stack([(np.arange(104) + 3) % 104, np.arange(104), np.where(np.arange(104) % 2, 5, -1)], axis=1)
    content = mine(*files(queries=INDEX, positives=positives), **TOP)
    scores, order = brute_force(INDEX, INDEX, 9)
    for row, (values, rows) in enumerate(zip(scores, order, strict=True)):
        left = [(i, s) for i, s in zip(rows, values, strict=True) if i not in positives[row]][:4]
        assert [*zip(content["indices"][row], content["scores"][row], strict=True)] == left
        assert content["positive_scores"][row] == INDEX[row] @ INDEX[positives[row, 0]]
    few = mine(*files(queries=INDEX, positives=positives), **TOP | {"candidates": 4})
    assert (few["indices"] == -1).any() and ((few["indices"] == -1) == (few["scores"] == -np.inf)).all()


def test_runner_up_draws_from_its_percentiles(files):
    rule = {"rule": "runner_up", "first": 0.1, "last": 0.2, "candidates": 20}
    _, order = brute_force(QUERIES, INDEX, 20)
    positives = order[:, 12]  # one of ranks 10 to 19 of 104
    content = mine(*files(positives=positives), **TOP | rule)
    for chosen, rows, positive in zip(content["indices"], order, positives, strict=True):
        assert len(set(chosen)) == 4 and set(chosen) <= set(rows[10:20]) - {positive}
    content = mine(*files(positives=positives), **TOP | rule | {"count": 10})
    for chosen, rows, positive in zip(content["indices"], order, positives, strict=True):
        assert set(chosen) == set(rows[10:20]) - {positive} | {-1}
    again = mine(*files(positives=positives), **TOP | rule | {"count": 10, "seed": 1})
    assert (again["indices"] != content["indices"]).any()


def bad(array, row, value):
    array = array.copy()
    array[row] = value
    return array


@pytest.mark.parametrize(
    "arrays, changes, message",
    [
        ({"queries": QUERIES[0]}, {}, r"--queries=.*: must be float \[rows, D\], not float32 \[4\]"),
        ({"queries": QUERIES[:, :3]}, {}, "--queries=.*: of 3 dimensions, but the index is of 4"),
        ({"index": INDEX.astype(int)}, {}, "--index=.*: must be float .* not int64"),
        ({"index": bad(INDEX, 17, np.nan)}, {}, "--index=.*: row 17 is not finite"),
        ({"queries": bad(QUERIES.astype(np.float64), 2, 1e300)}, {}, "--queries=.*: row 2 is not finite in float32"),
        ({"queries": QUERIES.astype(object)}, {}, "--queries=.*: not a .npy file of numbers"),
        ({"positives": np.arange(7.0)}, {}, "--positives=.*: must be int .* not float64"),
        ({"positives": np.arange(6)}, {}, "--positives=.*: of 6 rows, but there are 7 queries"),
        ({"positives": np.arange(98, 105)}, {}, r"row 6 is \[104\]: must be rows of the index, 0 to 103"),
        ({"positives": np.full((7, 2), -1)}, {}, r"row 0 is \[-1, -1\]"),
        ({}, {"candidates": 105}, "--candidates=105: must be from 1 to the 104 rows"),
        ({}, {"count": 10}, "--count=10: must be from 1 to the 9 candidates"),
        ({}, {"similarity": "cosin"}, "--similarity=cosin: .* did you mean 'cosine'"),
        ({}, {"rule": "simmans"}, "--rule=simmans: no such rule; did you mean 'simans'"),
        ({}, {"rule": "simans", "a": 0.5}, "--b: missing, of the rule simans; must be a number"),
        ({}, {"rule": "simans", "a": -1.0, "b": 0.0}, "--a=-1.0: must be a number >= 0"),
        ({}, {"rule": "simans", "a": 1.0, "b": math.nan}, "--b=nan: must be a number"),
        ({}, {"seed": -1}, "--seed=-1: must be an integer from 0"),
        ({}, {"rule": "second_cluster", "clusters": 1}, "--clusters=1: must be an integer >= 2"),
        ({}, {"margin": 0.1}, "--margin: not a parameter of the rule top"),
        ({}, {"rule": "runner_up", "first": 0.1, "last": 0.5}, "0.5 of 104 rows needs 52 candidates, not 9"),
    ],
)
def test_bad_input(files, arrays, changes, message):
    paths = files(**arrays)
    with pytest.raises(ConfigError, match=message):
        mine(*paths, **TOP | changes)
    assert not paths[-1].exists()


def test_command(files):
    paths = files()
    names = ("queries", "index", "positives", "out")
    settings = {"similarity": "cosine", "candidates": 9, "count": 4, "rule": "simans", "a": 0.5, "b": 0.0, "seed": 3}
    arguments = [f"--{name}={value}" for name, value in (dict(zip(names, paths, strict=True)) | settings).items()]

    def command(*arguments):
        return subprocess.run([sys.executable, "-m", "labelfx.mine", *arguments], capture_output=True, text=True)

    done = command(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with np.load(paths[-1], allow_pickle=False) as found:
        assert_same(found.values(), mine(*paths, **settings).values())
    for change, message in (
        ("--count=x", "--count=x: must be an integer >= 1"),
        ("--seed=-1", "--seed=-1: must be an integer >= 0"),
        ("--sed=1", "Unknown command line flag 'sed'"),
    ):
        done = command(*arguments, change)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr
        assert done.stderr.count("\n") == 1 and done.stdout == ""
