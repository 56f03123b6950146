"""Label views: counts, nesting, independence of what may not matter, and one clear line for what cannot be."""

import functools
import hashlib
import itertools
import json
import struct

import numpy as np
import pytest

from labelfx.data import Split
from labelfx.data.batches import label_view
from labelfx.data.labels import (
    all_labels,
    classes,
    file,
    first,
    fixmatch_fold,
    fraction,
    indices,
    long_tail,
    per_class,
    queried,
    rows_hash,
    said_hash,
    uniform,
)
from labelfx.labels import queries

SIZES = (30, 7, 12, 55)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(-1, 4), (20, *SIZES))).astype(np.int32)


def rng(seed=3):
    return np.random.default_rng(seed)


def assert_rows(rows):
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all(), "sorted, each once"
    assert (LABELS[rows] >= 0).all(), "an unknown label was chosen"


def test_all_labels_are_the_known_ones():
    rows = all_labels(LABELS, rng())
    assert_rows(rows)
    assert rows.tolist() == [row for row, label in enumerate(LABELS) if label != -1]


@pytest.mark.parametrize("k", [1, 4, 7])
def test_per_class_takes_k_of_each_class(k):
    rows = per_class(LABELS, rng(), k=k)
    assert_rows(rows)
    assert np.bincount(LABELS[rows]).tolist() == [k] * 4


def test_uniform_and_first_take_n_of_all():
    known = np.flatnonzero(LABELS >= 0)
    assert first(LABELS, rng(), n=9).tolist() == known[:9].tolist()
    rows = uniform(LABELS, rng(), n=60)
    assert_rows(rows)
    assert len(rows) == 60 and rows.tolist() != uniform(LABELS, rng(4), n=60).tolist()
    for view in (first, uniform):
        with pytest.raises(ValueError, match=r"^n = 105: 104 training rows have a label$"):
            view(LABELS, rng(), n=105)


def test_classes_are_whole():
    rows = classes(LABELS, rng(), classes=(3, 1))
    assert_rows(rows)
    assert np.bincount(LABELS[rows]).tolist() == [0, 7, 0, 55]
    for wrong in (4, -1):
        with pytest.raises(ValueError, match=rf"^classes has {wrong}, .*; allowed \[0, 1, 2, 3\]$"):
            classes(LABELS, rng(), classes=(0, wrong))


@pytest.mark.parametrize(
    ("sizes", "imbalance", "expected"),
    [
        ((5000,) * 10, 100.0, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),  # CIFAR-10-LT
        ((30, 7, 12, 55), 1.0, [7, 7, 7, 7]),
        ((30, 7, 12, 55), 8.0, [14, 7, 3, 1]),  # the second class, of half the first's size, has 7
        ((30, 7), 1000.0, [30, 1]),
    ],
)
def test_a_long_tail(sizes, imbalance, expected):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    assert np.bincount(labels[long_tail(labels, rng(), imbalance=imbalance)]).tolist() == expected


def test_a_long_tail_needs_every_class():
    with pytest.raises(ValueError, match=r"^class 1 has no labelled row$"):
        long_tail(np.array([0, 2, -1]), rng(), imbalance=2.0)


def test_fixmatch_folds():
    """Rows 3, 0, 2, 1, 3, 0, 3, 3, 0, 3 by class: of the class furthest behind its share; by hand."""
    assert np.bincount(LABELS[fixmatch_fold(LABELS, rng(), size=10, fold=3)]).tolist() == [3, 1, 1, 5]
    classes, random = [np.flatnonzero(LABELS == c) for c in range(4)], np.random.RandomState(3)
    shuffled = [random.permutation(rows) for rows in classes]
    for fold, expected in ((0, classes), (3, shuffled)):
        rows = fixmatch_fold(LABELS, rng(1), size=10, fold=fold)
        assert_rows(rows)
        assert sorted(rows) == sorted(
            np.concatenate([expected[0][:3], expected[1][:1], expected[2][:1], expected[3][:5]])
        )
        assert rows.tolist() == fixmatch_fold(LABELS, rng(2), size=10, fold=fold).tolist()
    with pytest.raises(ValueError, match="size = 200: the classes have 30, 7, 12, 55 labelled rows"):
        fixmatch_fold(LABELS, rng(), size=200, fold=1)


@pytest.mark.parametrize("seed", range(5))
def test_smaller_budgets_are_subsets_of_larger_ones(seed):
    shares = (0.02, 0.3, 0.4, 1.0)
    for views in (
        [per_class(LABELS, rng(seed), k=k) for k in range(1, 8)],
        [uniform(LABELS, rng(seed), n=n) for n in (1, 7, 50, 104)],
        [first(LABELS, rng(seed), n=n) for n in (1, 7, 50, 104)],
        [classes(LABELS, rng(seed), classes=some) for some in ((2,), (2, 0), (3, 0, 2))],
        [fraction(LABELS, rng(seed), fraction=share, balanced=True) for share in shares],
        [fraction(LABELS, rng(seed), fraction=share, balanced=False) for share in shares],
    ):
        for small, large in itertools.pairwise(views):
            assert len(small) < len(large) and set(small) < set(large)


def test_every_row_of_a_class_is_equally_likely():
    """Of class 1's seven rows each is drawn with probability 2/7; 2,000 seeds, within 5 standard deviations."""
    draws = np.concatenate([per_class(LABELS, rng(seed), k=2) for seed in range(2000)])
    counts = np.bincount(draws, minlength=len(LABELS))[LABELS == 1]
    deviation = np.sqrt(2000 * (2 / 7) * (5 / 7))
    assert np.abs(counts - 2000 * 2 / 7).max() < 5 * deviation


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    assert per_class(LABELS, rng(1), k=5).tolist() == per_class(LABELS, rng(1), k=5).tolist()
    assert per_class(LABELS, rng(1), k=5).tolist() != per_class(LABELS, rng(2), k=5).tolist()


def test_per_class_names_the_class_that_is_too_small():
    with pytest.raises(ValueError, match=r"^k = 8: class 1 has 7 labelled rows; at most k = 7$"):
        per_class(LABELS, rng(), k=8)


def test_per_class_counts_a_class_without_rows():
    with pytest.raises(ValueError, match="class 1 has 0 labelled rows"):
        per_class(np.array([0, 2, 0, -1], np.int32), rng(), k=1)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 0.5, 1.0])
def test_balanced_fraction_rounds_each_class_half_up_and_keeps_one(share):
    rows = fraction(LABELS, rng(), fraction=share, balanced=True)
    assert_rows(rows)
    assert np.bincount(LABELS[rows]).tolist() == [max(1, int(np.floor(share * size + 0.5))) for size in SIZES]


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.1, 10), (0.5, 52), (1.0, 104)])
def test_unbalanced_fraction_counts_all_labelled_rows_together(share, count):
    rows = fraction(LABELS, rng(), fraction=share, balanced=False)
    assert_rows(rows)
    assert len(rows) == count


def test_unbalanced_fraction_lets_class_counts_vary():
    counts = {np.bincount(LABELS[fraction(LABELS, rng(s), fraction=0.2, balanced=False)])[0] for s in range(20)}
    assert len(counts) > 1


def test_indices_are_kept_and_sorted():
    known = np.flatnonzero(LABELS >= 0)
    rows = indices(LABELS, rng(), rows=(int(known[9]), int(known[2]), int(known[5])))
    assert rows.tolist() == known[[2, 5, 9]].tolist()
    assert_rows(rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), "rows is empty; name at least one labelled row"),
        ((0, 5), "rows has 5; allowed 0..4"),
        ((-1,), "rows has -1; allowed 0..4"),
        ((3, 0, 3), "rows has 3 2 times; name each row once"),
        ((0, 2), "rows has 2, whose label is unknown; 1 of 2 rows are"),
    ],
)
def test_indices_refuses(rows, message):
    with pytest.raises(ValueError) as error:
        indices(np.array([0, 1, -1, 1, 0], np.int32), rng(), rows=rows)
    assert str(error.value) == message


def test_a_file_names_the_rows(tmp_path):
    known = np.flatnonzero(LABELS >= 0)
    np.save(tmp_path / "rows.npy", known[[7, 3]].astype(np.uint16))
    (tmp_path / "labels.json").write_text(json.dumps({"hash": "", "rows": known[[7, 3]].tolist()}))
    for name in ("rows.npy", "labels.json"):
        assert file(LABELS, rng(), path=str(tmp_path / name)).tolist() == known[[3, 7]].tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npy", None, "No such file or directory"),
        ("none.json", None, "No such file or directory"),
        ("a.json", b"{", "Expecting property name"),
        ("a.json", b"[1]", "no rows there"),
        ("a.json", b"{}", "no rows there"),
        ("a.json", b'{"rows": [0.5]}', r"float64 \[1\]; must be row numbers, integers \[n\]"),
        ("a.json", b'{"rows": [[1]]}', r"int64 \[1, 1\]; must be row numbers, integers \[n\]"),
        ("a.npy", b"abc", "no header of an array"),
    ],
)
def test_a_file_that_names_no_rows(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^path = '\S*{name}': {message}"):
        file(LABELS, rng(), path=str(tmp_path / name))


def test_a_file_of_pickles_is_no_file_of_rows(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(ValueError, match="an array of Python objects, which are pickled"):
        file(LABELS, rng(), path=str(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    "view",
    [
        all_labels,
        lambda labels, rng: per_class(labels, rng, k=1),
        lambda labels, rng: fraction(labels, rng, fraction=0.5, balanced=True),
        lambda labels, rng: fraction(labels, rng, fraction=0.5, balanced=False),
        lambda labels, rng: uniform(labels, rng, n=1),
        lambda labels, rng: first(labels, rng, n=1),
        lambda labels, rng: classes(labels, rng, classes=(0,)),
        lambda labels, rng: long_tail(labels, rng, imbalance=2.0),
        lambda labels, rng: fixmatch_fold(labels, rng, size=1, fold=1),
    ],
)
def test_no_label_at_all_is_an_error(view):
    with pytest.raises(ValueError, match=r"no training row has a label: all 6 are -1"):
        view(np.full(6, -1, np.int32), rng())


def test_hashes_are_of_the_rows_and_of_all_that_is_said():
    rows, labels, candidates = np.array([0, 3]), np.array([3, -1, -1, 7], np.int32), np.eye(4, 2) > 0
    assert rows_hash(rows) == hashlib.sha256(struct.pack("<qq", 0, 3)).hexdigest() != rows_hash(np.array([0, 2]))
    said = struct.pack("<qq", 0, 3) + b"candidates b1 [4, 2] " + candidates.tobytes()
    said += b"label i4 [4] " + struct.pack("<iiii", 3, -1, -1, 7)
    found = said_hash(rows, labels, {"candidates": candidates})
    assert found == hashlib.sha256(said).hexdigest()
    assert said_hash(rows, labels, {}) != found != said_hash(rows, labels, {"candidates": ~candidates})
    split = Split(np.zeros((4, 2)), labels + 1, {})  # what is said of rows that were not chosen does not count
    views = [label_view(split._replace(labels=split.labels + hidden), rows) for hidden in ([0, 0, 0, 0], [0, 1, 2, 0])]
    assert len({said_hash(rows, view.split.labels, view.split.columns) for view in views}) == 1


def test_a_query_chooses_in_rounds_that_double():
    """It sees the labels of rows that it has chosen alone, and budgets that are rounds nest."""
    x = np.random.default_rng(1).normal(size=(len(LABELS), 3)).astype(np.float32)
    seen = []

    def first_left(evidence, told, count, rng):
        seen.append((len(told), count, np.flatnonzero(evidence.columns["label"] >= 0).tolist()))
        assert sorted(told.tolist()) == seen[-1][2]
        return np.setdiff1d(np.arange(len(evidence.features)), told)[-count:]

    how = {"start": 3, "query": first_left, "encoder": "/e"}
    rows = queried(LABELS, rng(), {"/e": x}.get, n=20, **how)
    assert_rows(rows)
    known = np.flatnonzero(LABELS >= 0)
    assert rows.tolist() == known[-20:].tolist()
    assert [each[:2] for each in seen] == [(0, 3), (3, 3), (6, 6), (12, 8)]
    how["query"] = functools.partial(queries.margin)  # uniformly at first
    few, more = (queried(LABELS, rng(), {"/e": x}.get, n=n, **how) for n in (12, 24))
    assert {*few.tolist()} < {*more.tolist()} and len(more) == 24
    hidden = np.where(np.isin(np.arange(len(LABELS)), more) | (LABELS < 0), LABELS, (LABELS + 1) % 4)
    np.testing.assert_array_equal(queried(hidden, rng(), {"/e": x}.get, n=24, **how), more)
    with pytest.raises(ValueError, match="n = 105: 104 training rows have a label"):
        queried(LABELS, rng(), {"/e": x}.get, n=105, **how)
    with pytest.raises(ValueError, match="no class"):
        queried(LABELS.astype(np.float32), rng(), {"/e": x}.get, n=5, **how)
