"""Tables: several labels, bags, graphs, one's own files, and one clear line for what is missing or damaged."""

import json
import sys

import numpy as np
import pytest

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import known, sources, weak
from labelfx.data.batches import label_view
from labelfx.data.sources import images, own, tables
from labelfx.hardware import blank

RNG = np.random.default_rng(0)
NUMBERS = {"vocab_size": 0, "max_length": 0, "test": "", "test_seed": 0}


def real(data_root, name):
    if not (data_root / name).is_dir():
        pytest.skip(f"no {data_root / name}")
    return str(data_root / name)


def message_of(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def assert_blank(dataset, **data):
    """What is said without the data is true of them."""
    config = configs.check(
        configs.recipe("supervised") | {"data": data, "model": {"name": "mlp", "hidden": (4,), "dtype": "float32"}}
    )
    found = blank.blank_dataset(config, None, None, None)

    def shapes(inputs, labels, columns):
        return {k: (x.dtype, x.shape[1:]) for k, x in {"inputs": inputs, "labels": labels, **columns}.items()}

    assert shapes(*found.train) == shapes(*dataset.train)
    assert (found.task, found.num_outputs) == (dataset.task, dataset.num_outputs)
    return found


# Several labels


def write_multilabel(folder, **changes):
    arrays = {
        "X": RNG.standard_normal((30, 4)),
        "Y": (RNG.random((30, 3)) < 0.3).astype(np.uint8),
        "label_names": np.array(["a", "b", "c"]),
    } | changes
    np.savez(folder / "own.npz", **arrays)
    return arrays


def test_several_labels(tmp_path):
    arrays = write_multilabel(tmp_path)
    found = sources.multilabel("own", data_dir=str(tmp_path), seed=0)
    assert found.task == "several" and found.class_names == ("a", "b", "c")
    assert (len(found.train.inputs), len(found.test.inputs)) == (20, 10)
    rows = np.concatenate([np.c_[split.inputs, split.labels] for split in (found.train, found.test)])
    expected = np.c_[arrays["X"].astype(np.float32), arrays["Y"]]
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
    other = sources.multilabel("own", data_dir=str(tmp_path), seed=1)
    assert not np.array_equal(other.train.inputs, found.train.inputs)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Y": np.full((30, 3), 2)}, "Y holds 2..2; allowed 0 and 1"),
        ({"Y": np.zeros((29, 3), int)}, "X [30, 4], Y [29, 3], label_names [3]; must be [N, F], [N, C] and [C]"),
        ({"label_names": np.array(["a"])}, "label_names [1]; must be [N, F], [N, C] and [C]"),
        ({"X": np.full((30, 4), np.nan)}, "X holds numbers that are not finite"),
        ({"X": np.full((30, 4), 1e300)}, "X holds numbers beyond float32"),
        ({"X": np.zeros((30, 4, 1))}, "X is float64 [30, 4, 1]; must be numbers of rank 2"),
        ({"X": np.zeros((30, 4), complex)}, "X is complex128 [30, 4]; must be numbers of rank 2"),
        ({"label_names": np.array(["a", 1, "c"], object)}, "nothing pickled"),
    ],
)
def test_damaged_several_labels(tmp_path, changes, expected):
    write_multilabel(tmp_path, **changes)
    with pytest.raises(ValueError) as error:
        sources.multilabel("own", data_dir=str(tmp_path), seed=0)
    assert expected in message_of(error) and str(tmp_path / "own.npz") in message_of(error)


def test_missing_several_labels(tmp_path):
    write_multilabel(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"yeast.npz: no such file; there is own$"):
        sources.multilabel("yeast", data_dir=str(tmp_path), seed=0)


def test_stratification_keeps_rare_labels_on_both_sides():
    """Against a random split, over seeds: a label with three positives has one on the small side, always."""
    rng = np.random.default_rng(0)
    positive = rng.random((600, 20)) < 0.2
    positive[:, :5] = False
    for label in range(5):
        positive[rng.choice(600, 3, replace=False), label] = True
    ours, theirs = [], []
    for seed in range(20):
        part = tables._stratified(positive, (2 / 3, 1 / 3), np.random.default_rng(seed))
        assert abs(np.count_nonzero(part == 0) - 400) <= 12
        share = positive[part == 1].sum(0) / positive.sum(0)
        np.testing.assert_allclose(share[:5], 1 / 3)
        random = np.random.default_rng(seed).permutation(600)[:200]
        ours.append(np.abs(share - 1 / 3).mean())
        theirs.append(np.abs(positive[random].sum(0) / positive.sum(0) - 1 / 3).mean())
    assert np.mean(ours) < 0.005 and np.mean(theirs) > 0.05


SIZES = {"yeast": (2417, 103, 14, 4.237), "emotions": (593, 72, 6, 1.868), "enron": (1702, 1001, 53, 3.378)}
SIZES["CAL500"] = (502, 68, 174, 26.044)


@pytest.mark.parametrize("name", SIZES)
def test_real_several_labels(data_root, name):
    """Rows, columns, labels and labels a row as Mulan's page gives them."""
    n, features, labels, cardinality = SIZES[name]
    data_dir = real(data_root, "multilabel")
    found = sources.multilabel(name, data_dir=data_dir, seed=0)
    every = np.concatenate([found.train.labels, found.test.labels])
    assert every.shape == (n, labels) and every.dtype == np.int8 and abs(every.sum() / n - cardinality) < 1e-3
    assert found.train.inputs.shape == (blank.SHAPES[f"multilabel:{name.lower()}"][2], features)
    common = every.sum(0) >= 9
    np.testing.assert_allclose((found.test.labels.sum(0) / every.sum(0))[common], 1 / 3, atol=0.12)
    assert_blank(found, name=f"multilabel:{name}", data_dir=data_dir, seed=0)


# Bags


def write_musk(folder, **changes):
    arrays = {
        "X": RNG.integers(-300, 300, (40, 5)),
        "bag_id": np.arange(40) // 4,
        "bag_label": np.array([0, 1] * 5, np.uint8),
    } | changes
    np.savez(folder / "musk1.npz", **arrays)


@pytest.mark.parametrize("seed", range(4))
def test_bags_are_whole_on_either_side_and_each_is_tested_once(seed, tmp_path):
    write_musk(tmp_path)
    tested = []
    for fold in range(5):
        found = sources.musk1(data_dir=str(tmp_path), folds=5, fold=fold, seed=seed)
        train, test = (np.unique(split.columns["bag"]) for split in (found.train, found.test))
        assert not set(train) & set(test) and len(train) == 8
        tested += test.tolist()
        for split in (found.train, found.test):
            np.testing.assert_array_equal(split.columns["bag_target"], np.eye(2)[split.columns["bag"] % 2])
            assert (split.labels == -1).all() and split.columns["bag_target"].dtype == np.float32
        assert sorted(test % 2) == [0, 1]  # the classes alike
    assert sorted(tested) == list(range(10))
    view = label_view(found.train, np.arange(len(found.train.labels)))
    assert set(view.split.columns) == {"bag", "bag_target"}


@pytest.mark.parametrize(
    ("changes", "folds", "fold", "expected"),
    [
        ({}, 11, 0, "folds = 11, fold = 0: must be 2 to 10 folds, and one of them from 0"),
        ({}, 5, 5, "folds = 5, fold = 5: must be 2 to 10 folds"),
        ({"bag_id": np.arange(40) // 5}, 5, 0, "bag_id [40], bag_label [10]; must be [N, F], [N] with each of 0..bags"),
        ({"bag_label": np.full(10, 3)}, 5, 0, "bag_label holds 3..3; allowed 0 and 1"),
        ({"bag_id": np.zeros(40)}, 5, 0, "bag_id is float64 [40]; must be integers of rank 1"),
    ],
)
def test_damaged_bags(tmp_path, changes, folds, fold, expected):
    write_musk(tmp_path, **changes)
    with pytest.raises(ValueError) as error:
        sources.musk1(data_dir=str(tmp_path), folds=folds, fold=fold, seed=0)
    assert expected in message_of(error)


def test_real_musk(data_root):
    """92 molecules, 47 of them musk, of 476 shapes."""
    how = {"data_dir": real(data_root, "musk1"), "folds": 10, "fold": 2, "seed": 0}
    found = sources.musk1(**how)
    bags, targets = (
        np.concatenate([split.columns[k] for split in (found.train, found.test)]) for k in ("bag", "bag_target")
    )
    _, first = np.unique(bags, return_index=True)
    assert (len(bags), len(first), targets[first, 1].sum()) == (476, 92, 47)
    assert len(np.unique(found.test.columns["bag"])) in (9, 10) and found.train.inputs.min() < -300
    assert_blank(found, name="musk1", **how)


# Graphs


def write_graph(folder, **changes):
    arrays = {
        "feat_data": np.ones(6, np.float32),
        "feat_indices": np.array([0, 1, 2, 0, 3, 1]),
        "feat_indptr": np.array([0, 2, 3, 3, 4, 5, 6]),
        "feat_shape": np.array([6, 4]),
        "edges": np.array([[0, 1], [1, 2], [2, 5], [4, 4]]),
        "labels": np.array([0, 1, 6, -1, 2, 3]),
        "train_idx": np.array([2, 0]),
        "val_idx": np.array([5]),
        "test_idx": np.array([4]),
    } | changes
    np.savez(folder / "cora.npz", **arrays)


def test_graph(tmp_path):
    write_graph(tmp_path)
    found = sources.planetoid("Cora", data_dir=str(tmp_path))
    np.testing.assert_array_equal(found.train.inputs, [[2], [0], [5], [1], [3]])  # published labels, validation, rest
    np.testing.assert_array_equal(found.train.labels, [6, 0, 3, 1, -1])
    np.testing.assert_array_equal(found.test.inputs, [[4]])
    graph = found.side["graph"]
    expected = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0] * 4, [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]])
    np.testing.assert_array_equal(graph.features, expected)
    np.testing.assert_array_equal(graph.edges, [[1, 0], [0, 1], [2, 1], [1, 2], [5, 2], [2, 5]])
    assert graph.edges.dtype == found.train.inputs.dtype == np.int32 and graph.num_nodes == 6


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"edges": np.array([[0, 6]])}, "edges must be pairs of nodes 0..5"),
        ({"labels": np.array([0, 1, 7, -1, 2, 3])}, "labels lie in -1..7; allowed -1..6"),
        ({"test_idx": np.array([3])}, "must be nodes 0..5 that have a label"),
        ({"test_idx": np.array([0])}, "must name nodes once, some for testing, and not all"),
        ({"test_idx": np.array([9])}, "must be nodes 0..5 that have a label"),
        ({"feat_indptr": np.array([0, 2, 1, 3, 4, 5, 6])}, "are no sparse matrix of 6 rows"),
        ({"feat_indices": np.array([0, 1, 2, 0, 4, 1])}, "are no sparse matrix of 6 rows"),
        ({"feat_data": np.full(6, 0.5)}, "feat_data must be 1 wherever a node has a word"),
        ({"feat_shape": np.array([6, 2**40])}, "at most 1073741824 entries"),
    ],
)
def test_damaged_graph(tmp_path, changes, expected):
    write_graph(tmp_path, **changes)
    with pytest.raises(ValueError) as error:
        sources.planetoid("cora", data_dir=str(tmp_path))
    assert expected in message_of(error) and "cora.npz" in message_of(error)


def test_missing_graph(tmp_path):
    with pytest.raises(FileNotFoundError, match="citeseer.npz: no such file; it should be an .npz with feat_data"):
        sources.planetoid("CiteSeer", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="'pubmed': no such graph; allowed: cora, citeseer"):
        sources.planetoid("pubmed", data_dir=str(tmp_path))


@pytest.mark.parametrize(("name", "n", "words", "edges"), [("Cora", 2708, 1433, 5278), ("CiteSeer", 3327, 3703, 4552)])
def test_real_graphs(data_root, name, n, words, edges):
    """The public split: the first 20 labelled rows of each field, 500 to choose by, 1,000 to test on."""
    data_dir = real(data_root, "planetoid")
    found = sources.planetoid(name, data_dir=data_dir)
    graph = found.side["graph"]
    assert graph.features.shape == (n, words) and graph.edges.shape == (2 * edges, 2)
    assert (len(found.train.inputs), len(found.test.inputs)) == (n - 1000, 1000)
    view = configs.build(configs.LABELS, {"name": "first", "n": 20 * len(found.class_names)})
    rows = view(found.train.labels, np.random.default_rng(0))
    assert np.bincount(found.train.labels[rows]).tolist() == [20] * len(found.class_names)
    with np.load(data_root / "planetoid" / f"{name.lower()}.npz") as file:
        published = np.concatenate([file["train_idx"], file["val_idx"]])
    np.testing.assert_array_equal(found.train.inputs[: len(published), 0], published)
    seen = assert_blank(found, name=f"planetoid:{name}", data_dir=data_dir)
    assert [x.shape for x in seen.side["graph"]] == [x.shape for x in graph]


# Bundled


def test_breast_cancer():
    found = sources.breast_cancer()
    assert found.train.inputs.shape == (427, 30) and found.train.inputs.dtype == np.float32
    assert found.class_names == ("malignant", "benign") and len(found.test.labels) == 142
    assert_blank(found, name="breast_cancer")


# What people say of CIFAR-10


@pytest.fixture
def few_pictures(monkeypatch):
    """CIFAR-10 without its pictures."""
    labels = {"train": np.arange(50_000) % 10, "test": np.arange(10_000) % 10}
    splits = {k: images.Split(np.zeros((len(v), 1, 1, 3), np.uint8), v.astype(np.int32)) for k, v in labels.items()}
    monkeypatch.setattr(images, "cifar10", lambda data_dir: images.Dataset(*splits.values(), images.CIFAR10))
    return labels


def test_cifar10n(few_pictures, tmp_path):
    clean = few_pictures["train"]
    names = ("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label")
    given = {name: (clean + i) % 10 for i, name in enumerate(names)}
    np.savez(tmp_path / "CIFAR-10_human.npz", clean_label=clean, **given)
    found = sources.cifar10n(data_dir="unread", labels_dir=str(tmp_path))
    np.testing.assert_array_equal(found.train.columns["worse"], (clean + 4) % 10)
    assert found.train.columns["worse"].dtype == np.int32
    # None is said as it is: their names are not those of columns.
    rows = np.arange(100)
    assert label_view(found.train, rows).split.columns == {}
    said = weak.column(found.train.columns, column="worse", role="label")
    np.testing.assert_array_equal(label_view(found.train, rows, said).split.labels[:100], (clean[:100] + 4) % 10)
    np.savez(tmp_path / "CIFAR-10_human.npz", clean_label=clean[::-1], **given)
    with pytest.raises(ValueError, match="clean_label are not the labels of the images in unread, in their order"):
        sources.cifar10n(data_dir="unread", labels_dir=str(tmp_path))
    np.savez(tmp_path / "CIFAR-10_human.npz", clean_label=clean, **given | {"worse_label": clean + 1})
    with pytest.raises(ValueError, match="worse_label must be a class 0 to 9 of each image"):
        sources.cifar10n(data_dir="unread", labels_dir=str(tmp_path))


def test_cifar10h(few_pictures, tmp_path):
    counts = RNG.integers(0, 20, (10_000, 10)) + np.eye(10, dtype=int)[few_pictures["test"]]
    np.save(tmp_path / "cifar10h-counts.npy", counts)
    found = sources.cifar10h(data_dir="unread", labels_dir=str(tmp_path), seed=0)
    assert (len(found.train.labels), len(found.test.labels)) == (8000, 2000)
    every = np.concatenate([split.columns["target"] for split in (found.train, found.test)])
    assert every.dtype == np.float32
    np.testing.assert_allclose(every.sum(1), 1, rtol=1e-6)
    expected = counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(np.sort(every, 0), np.sort(expected, 0), rtol=1e-6)
    for bad in (counts[:10], np.zeros_like(counts), counts - 50, counts.astype(float)):
        np.save(tmp_path / "cifar10h-counts.npy", bad)
        with pytest.raises(ValueError, match="cifar10h-counts.npy: .*must be "):
            sources.cifar10h(data_dir="unread", labels_dir=str(tmp_path), seed=0)


def test_real_labels_of_people(data_root, monkeypatch):
    """The rates of wrong labels that Wei et al. (2022) give, and that majority and label agree on 99.21 %."""
    monkeypatch.setattr(images, "_cifar10_mosaic", lambda path: np.zeros((10_000, 32, 32, 3), np.uint8))
    data_dir = real(data_root, "cifar10")
    found = sources.cifar10n(data_dir=data_dir, labels_dir=real(data_root, "cifar10n"))
    wrong = {name: (column != found.train.labels).mean() for name, column in found.train.columns.items()}
    rates = {"aggre": 0.0903, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "worse": 0.4021}
    assert wrong.keys() == rates.keys() and all(abs(wrong[k] - rates[k]) < 3e-4 for k in rates)
    assert_blank(found, name="cifar10n", data_dir="unread", labels_dir="unread")
    found = sources.cifar10h(data_dir=data_dir, labels_dir=real(data_root, "cifar10h"), seed=0)
    agree = [(split.columns["target"].argmax(1) == split.labels).sum() for split in (found.train, found.test)]
    assert abs(sum(agree) / 10_000 - 0.9921) < 2e-4
    assert_blank(found, name="cifar10h", data_dir="unread", labels_dir="unread", seed=0)


# One's own tables

ROWS = [
    {"a": 1, "b": 0.5, "kind": "dog", "y": 1, "z": 0, "part": "train"},
    {"a": 2, "b": -0.5, "kind": "cat", "y": 0, "z": None, "part": "train"},
    {"a": 3, "b": 1e-3, "kind": None, "y": None, "z": None, "part": "train"},
    {"a": 4, "b": 7, "kind": "cat", "y": 0, "z": 1, "part": "test"},
]


def write_csv(path, rows):
    lines = [",".join(rows[0]), *(",".join("" if v is None else f'"{v}"' for v in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))


def write_parquet(path, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def table(kind, path, rows=ROWS, **how):
    WRITERS[kind](path, rows)
    return getattr(sources, kind)(
        str(path), **NUMBERS | {"inputs": ("a", "b"), "labels": ("kind",), "task": "class"} | how
    )


@pytest.mark.parametrize("kind", WRITERS)
def test_own_table(kind, tmp_path):
    found = table(kind, tmp_path / "own", test="part=test")
    np.testing.assert_array_equal(found.train.inputs, np.float32([[1, 0.5], [2, -0.5], [3, 1e-3]]))
    np.testing.assert_array_equal(found.test.inputs, np.float32([[4, 7]]))
    assert found.class_names == ("cat", "dog") and found.train.labels.tolist() == [1, 0, -1]
    assert found.test.labels.tolist() == [0] and found.side == {}
    config = configs.recipe("supervised") | {
        "data": {"name": f"{kind}:x", "inputs": ("a", "b"), "labels": ("kind",), "task": "class", **NUMBERS},
        "model": {"name": "mlp", "hidden": (4,), "dtype": "float32"},
    }
    seen = blank.blank_dataset(configs.check(config), None, 2, 3)
    assert seen.train.inputs.shape == (3, 2) and seen.train.inputs.dtype == np.float32 and seen.task == "class"

    several = table(kind, tmp_path / "own", labels=("y", "z"), task="several", test="part=test")
    assert several.task == "several" and several.train.labels.tolist() == [[1, 0], [0, -1], [-1, -1]]
    targets = table(kind, tmp_path / "own", inputs=("a",), labels=("b", "y"), task="target", test="part=test")
    np.testing.assert_array_equal(targets.train.labels, np.float32([[0.5, 1], [-0.5, 0], [1e-3, np.nan]]))
    assert targets.task == "target" and targets.num_outputs == 2
    one = table(kind, tmp_path / "own", inputs=("a",), labels=("b",), task="target")
    assert one.train.labels.shape == (4,) and one.test is None and one.class_names == ()
    nothing = table(kind, tmp_path / "own", labels=())
    assert nothing.task == "none" and (nothing.train.labels == -1).all()


def test_a_share_for_testing_is_drawn_of_known_labels_and_never_cuts_equal_rows_apart(tmp_path):
    rows = [{"a": i // 2, "b": 0, "kind": "xy"[i % 2] if i % 5 else None} for i in range(100)]
    kept = []
    for seed in (0, 0, 1):
        found = table("csv", tmp_path / "own", rows, test="20%", test_seed=seed)
        assert known(found.test.labels).all() and 14 <= len(found.test.labels) <= 16  # a fifth of the 80 known
        assert not set(found.train.inputs[:, 0]) & set(found.test.inputs[:, 0])
        kept.append(found.test.inputs)
    np.testing.assert_array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[0], kept[2])


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    rows = [{"a": 1, "b": 0, "kind": n} for n in (10, 9, 100, 9)]
    assert table("csv", tmp_path / "own", rows).class_names == ("9", "10", "100")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"inputs": ("a", "c")}, "no column 'c'; there are 'a', 'b', 'kind', 'part', 'y', 'z'"),
        ({"inputs": ("a", "kind")}, "row 1 has 'dog' in 'kind'; must be a finite number"),
        ({"inputs": ("z",)}, "row 2 has "),
        ({"labels": ("b",), "task": "several"}, "row 1 has 0.5 in 'b'; allowed 0, 1 and empty"),
        ({"labels": ("kind", "part")}, "labels = ('kind', 'part'): a class is in one column"),
        ({"labels": ("y",), "test": "part=dev"}, "no row has 'dev' in 'part'; there are 'test', 'train'"),
        ({"test": "kind=", "labels": ("kind",)}, "row 3 is for testing and has an empty label"),
        ({"test": "1%"}, "test = '1%': no row of "),
        ({"inputs": ("a", "b"), "vocab_size": 300, "max_length": 4}, "must be one column of texts"),
        ({"vocab_size": 300}, "vocab_size = 300, max_length = 0: both are 0, for numbers, or neither"),
    ],
)
@pytest.mark.parametrize("kind", WRITERS)
def test_own_tables_that_cannot_be(kind, how, expected, tmp_path):
    with pytest.raises(ValueError) as error:
        table(kind, tmp_path / "own", **how)
    assert expected in message_of(error)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("csv", b"a,b,kind\n1,2\n", "line 2 has 2 values; must be 3"),
        ("csv", b"a,a\n", "the first line must name the columns, each once; it is ['a', 'a']"),
        ("csv", b"", "the first line must name the columns"),
        ("csv", b"a,b,kind\n", "holds no rows"),
        ("csv", b'a,b,kind\n1,2,"x"y\n', "line 2: "),
        ("csv", b"\xff\xfe", "must be utf-8-sig text"),
        ("csv", b"a,b,kind\n1,2,x\n1,2,x\n", "column 'kind' holds 1 classes ['x']; at least 2 are needed"),
        ("jsonl", b'{"a": 1}\n[1]\n', "line 2 is [1]; must be an object"),
        ("jsonl", b'{"a": 1\n', "line 1 is no JSON"),
        ("jsonl", b'{"a": [1], "b": 1, "kind": "x"}\n', "line 1 has [1] in 'a'; must be a text or a number"),
        ("jsonl", b"", "holds no rows"),
        ("parquet", b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_damaged_own_tables(kind, content, expected, tmp_path):
    (tmp_path / "own").write_bytes(content)
    with pytest.raises(ValueError) as error:
        getattr(sources, kind)(str(tmp_path / "own"), inputs=("a", "b"), labels=("kind",), task="class", **NUMBERS)
    assert expected in message_of(error) and str(tmp_path / "own") in message_of(error)


def test_parquet_asks_for_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "own").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"Parquet needs pyarrow .*; pip install 'labelfx\[export\]'"):
        sources.parquet(str(tmp_path / "own"), inputs=("a",), labels=(), task="class", **NUMBERS)


@pytest.mark.parametrize("test", ["20", "0%", "100%", "a fifth"])
def test_what_a_test_split_may_be(test):
    data = {"name": "csv:x", "inputs": ("a",), "labels": (), "task": "class", **NUMBERS, "test": test}
    with pytest.raises(ConfigError, match=r"config.data.test = .*: must be '' for none, 'COLUMN=VALUE' or a share"):
        configs.check(configs.recipe("supervised") | {"data": data})


def test_a_run_on_ones_own_table(tmp_path):
    rows = [{"a": i % 7, "b": float(i % 7 > 3), "kind": "no" if i % 7 > 3 else "yes"} for i in range(70)]
    write_csv(tmp_path / "own.csv", rows)
    config = configs.recipe("supervised") | {
        "data": {"name": f"csv:{tmp_path / 'own.csv'}", "inputs": ("a", "b"), "labels": ("kind",), "task": "class"}
        | NUMBERS
        | {"test": "30%"},
        "labels": {"name": "all_labels"},
        "model": {"name": "mlp", "hidden": (8,), "dtype": "float32"},
        "evals": {"head": {}},
        "steps": 40,
        "batch": {"labelled": 16, "unlabelled": 0},
        "devices": 1,
    }
    config["method"] = config["method"] | {"augment": {"name": "identity"}}
    config["optimizer"] = config["optimizer"] | {"learning_rate": 0.05}
    results = labelfx.train(config, tmp_path / "run")
    assert results["metrics"]["head"]["accuracy"] > 0.9
    encoder = labelfx.load(tmp_path / "run")
    probabilities = encoder.predict(np.float32([[0, 0], [6, 1]]))
    assert [encoder.class_names[i] for i in probabilities.argmax(1)] == ["yes", "no"]


def test_tables_are_read_by_their_columns_alone(tmp_path):
    """A column that is not asked for may hold anything."""
    (tmp_path / "own").write_text('{"a": 1, "b": 2, "kind": "x", "more": {"any": []}}\n{"a": 1, "b": 2, "kind": "y"}\n')
    found = own.jsonl(str(tmp_path / "own"), inputs=("a", "b"), labels=("kind",), task="class", **NUMBERS)
    assert found.train.labels.tolist() == [0, 1]
