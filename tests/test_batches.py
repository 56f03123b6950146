"""Batches are a pure function of (seed, step, table)."""

import numpy as np
import pytest

from labelfx.data import Split
from labelfx.data.batches import batch_at, batches, draw, label_view
from labelfx.data.miners import clusters, ngame, uniform
from labelfx.models import Model


class Lazy:
    """Images that are made on access, as those of a folder are."""

    def __init__(self, images):
        self.images, self.shape, self.dtype = images, images.shape, images.dtype

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        return self.images[rows]


IMAGES = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
LABELS = np.arange(40, dtype=np.int32) % 4
VIEW = label_view(Split(IMAGES, LABELS), np.array([3, 5, 8, 30]))


def make(step, **changes):
    how = {"view": VIEW, "sizes": {"labelled": 6, "unlabelled": 16}, "seed": 0, "miner": uniform(), "table": {}}
    return batch_at(step, **how | changes)


POOL = np.array([2, 3, 5, 7, 11, 13, 17])


def test_a_batch_larger_than_the_pool_takes_pass_after_pass():
    rows = np.concatenate([draw(0, 1, step, 8, POOL) for step in range(7)])
    assert all(sorted(rows[i : i + 7]) == sorted(POOL) for i in range(0, 56, 7))
    assert any(list(rows[i : i + 7]) != list(rows[:7]) for i in range(7, 56, 7))
    np.testing.assert_array_equal(rows[:42], np.concatenate([draw(0, 1, step, 21, POOL) for step in range(2)]))
    assert not np.array_equal(rows, np.concatenate([draw(1, 1, step, 8, POOL) for step in range(7)]))


@pytest.mark.parametrize("size", range(1, 8))
def test_a_batch_holds_no_row_twice_and_what_a_pass_leaves_over_is_dropped(size):
    steps = 7 // size
    passes = [np.concatenate([draw(0, 1, epoch * steps + i, size, POOL) for i in range(steps)]) for epoch in range(200)]
    for rows in passes:  # the beginning of a permutation
        assert len(rows) == steps * size == len(set(rows)) and set(rows) <= set(POOL)
    assert len({tuple(rows) for rows in passes}) > 1
    # What is dropped differs from pass to pass, so that every row comes as often as any other.
    counts = np.array([sum(row in rows for rows in passes) for row in POOL])
    share = steps * size / 7
    assert abs(counts - 200 * share).max() <= 4 * np.sqrt(200 * share * (1 - share))
    # A function of (seed, stream, step), whatever was asked before.
    np.testing.assert_array_equal(passes[3][:size], draw(0, 1, 3 * steps, size, POOL))
    assert any(not np.array_equal(draw(1, 1, i, size, POOL), draw(0, 1, i, size, POOL)) for i in range(20))
    assert any(not np.array_equal(draw(0, 0, i, size, POOL), draw(0, 1, i, size, POOL)) for i in range(20))


def test_a_step_has_its_batch_whatever_came_before():
    first = [make(step) for step in range(6)]
    again = make(4)
    np.testing.assert_array_equal(again["unlabelled"]["input"], first[4]["unlabelled"]["input"])
    np.testing.assert_array_equal(again["labelled"]["index"], first[4]["labelled"]["index"])


def test_streams_hold_what_they_say():
    batch = make(2)
    labelled, unlabelled = batch["labelled"], batch["unlabelled"]
    assert set(labelled["index"]) == set(VIEW.rows.tolist())  # 6 draws from 4 rows
    np.testing.assert_array_equal(labelled["label"], LABELS[labelled["index"]])
    assert set(unlabelled) == {"index", "input"}
    np.testing.assert_array_equal(unlabelled["input"][:, 0, 0, 0], unlabelled["index"])
    np.testing.assert_array_equal(batch["audit"]["unlabelled"]["label"], LABELS[unlabelled["index"]])
    assert "unlabelled" not in make(2, sizes={"labelled": 6, "unlabelled": 0})


def test_hidden_labels_are_hidden():
    assert np.array_equal(np.flatnonzero(VIEW.split.labels >= 0), VIEW.rows)
    assert np.array_equal(VIEW.truth, LABELS)


def test_a_table_travels_with_its_rows_and_may_leave_rows_out():
    include = np.zeros(40, bool)
    include[[1, 4, 9]] = True
    batch = make(0, table={"include": include, "score": np.arange(40) * 10})
    assert set(batch["unlabelled"]["index"]) == {1, 4, 9}
    np.testing.assert_array_equal(batch["unlabelled"]["score"], batch["unlabelled"]["index"] * 10)
    np.testing.assert_array_equal(batch["labelled"]["score"], batch["labelled"]["index"] * 10)


@pytest.mark.parametrize("workers", [0, 2])
def test_lazy_images_make_the_same_batches(workers):
    lazy = VIEW._replace(split=VIEW.split._replace(inputs=Lazy(IMAGES)))
    how = {"sizes": {"labelled": 6, "unlabelled": 16}, "seed": 0, "miner": uniform(), "table": {}, "workers": workers}
    pairs = zip(range(3, 9), batches(3, 9, view=VIEW, **how), batches(3, 9, view=lazy, **how), strict=True)
    for step, memory, read in pairs:
        np.testing.assert_array_equal(memory["unlabelled"]["index"], make(step)["unlabelled"]["index"])
        np.testing.assert_array_equal(memory["unlabelled"]["input"], read["unlabelled"]["input"])
        np.testing.assert_array_equal(memory["labelled"]["label"], read["labelled"]["label"])


def mine(builder, degrees, progress=0.0, **settings):
    """A miner, and its table where the features of the rows of VIEW are points on a circle at these degrees."""
    points = np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], -1).astype(np.float32)

    def apply(variables, x, *, train):
        return variables["params"]["points"][(x[:, 0, 0, 0] * 255 + 0.5).astype(np.int32)], {}

    miner = builder(Model(lambda rng, x: {}, apply), **settings)
    variables = {"params": {"backbone": {"points": points}}}
    return miner, miner.refresh(variables, VIEW.split, np.random.default_rng(0), progress)


@pytest.fixture(scope="module")
def mined():
    """Three tight groups on a circle at 0, 40 and 180 degrees: 0 and 40 are each other's hard negatives."""
    degrees = np.repeat([0.0, 40.0, 180.0], [10, 14, 16]) + np.linspace(-2, 2, 40)
    return mine(clusters, degrees, clusters=3)


def test_clusters_are_found_and_hard_negatives_are_the_second_nearest(mined):
    _, table = mined
    group = np.repeat([0, 1, 2], [10, 14, 16])
    assert all(len(set(table["cluster"][group == g])) == 1 for g in range(3))
    hard = [
        set(group[table["order"][table["hard_first"][row] : table["hard_first"][row] + table["hard_count"][row]]])
        for row in range(40)
    ]
    assert all(hard[row] == {{0: 1, 1: 0, 2: 1}[group[row]]} for row in range(40))


def test_half_a_batch_stands_beside_its_hard_negatives(mined):
    miner, table = mined
    group = np.repeat([0, 1, 2], [10, 14, 16])
    partners = np.zeros(40, int)
    for step in range(50):
        index = make(step, miner=miner, table=table)["unlabelled"]["index"]
        anchors, beside = index[:8], index[8:]
        assert [{0: 1, 1: 0, 2: 1}[g] for g in group[anchors]] == group[beside].tolist()
        np.add.at(partners, beside, 1)
    assert (partners[:24] > 0).all() and not partners[24:].any()  # no group has the far one second


def test_an_empty_cluster_leaves_the_drawn_row():
    miner = clusters(Model(None, None), clusters=2)
    table = {
        "cluster": np.zeros(40, np.int32),
        "order": np.arange(40, dtype=np.int32),
        "hard_first": np.full(40, 40, np.int32),
        "hard_count": np.zeros(40, np.int32),
    }
    plain, kept = make(0)["unlabelled"]["index"], make(0, miner=miner, table=table)["unlabelled"]["index"]
    np.testing.assert_array_equal(plain, kept)


def test_a_batch_of_whole_balanced_clusters():
    """Eight groups of five round a circle, in shuffled order: halves of halves of halves find them."""
    group = np.random.default_rng(1).permutation(np.repeat(np.arange(8), 5))
    miner, table = mine(ngame, 45.0 * group + np.linspace(-2, 2, 40), cluster_size=6)
    counts = np.zeros(40, int)
    for row in range(40):
        neighbours = table["order"][table["first"][row] : table["first"][row] + table["count"][row]]
        assert set(neighbours) == set(np.flatnonzero(group == group[row]))
        assert set(neighbours) == set(np.flatnonzero(table["cluster"] == table["cluster"][row]))
    for step in range(200):
        drawn = make(step)["unlabelled"]["index"]
        index = make(step, miner=miner, table=table)["unlabelled"]["index"]
        found = list(dict.fromkeys(group[drawn]))
        assert group[index].tolist() == np.repeat(found, 5)[:16].tolist()
        assert len(set(index)) == 16
        np.add.at(counts, index, 1)
    assert abs(counts / 80 - 1).max() < 0.5 and abs(np.bincount(group, counts) / 400 - 1).max() < 0.2


def test_balanced_clusters_recover_from_their_start():
    """Two groups, of one of which both first centres often are."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        group = rng.permutation(np.repeat([0, 1], 20))
        _, table = mine(ngame, 90 * group + rng.uniform(-40, 40, 40), cluster_size=20)
        assert len(set(zip(table["cluster"], group, strict=True))) == 2


def test_sizes_of_balanced_clusters_differ_by_one():
    for size in (2, 3, 7, 39, 40, 50):
        _, table = mine(ngame, np.random.default_rng(size).uniform(0, 360, 40), cluster_size=size)
        counts = np.bincount(table["cluster"])
        assert counts.max() <= size and counts.max() - counts.min() <= 1
        assert sorted(table["order"]) == list(range(40))
