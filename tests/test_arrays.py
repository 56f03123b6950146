"""Arrays in memory, from Python alone: of any rows and labels, with a test split or without."""

import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx.config import ConfigError
from labelfx.data import Dataset, Split, known, labelled, merged, task, unknown

MLP = {"name": "mlp", "hidden": (8,), "dtype": "float32"}
NAMES = ("a", "b", "c")


def vectors(n, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n).astype(np.int32)
    return Split((1000 + 300 * (rng.normal(size=(n, 4)) + 2 * np.eye(3, 4)[label])).astype(np.float32), label)


def config(**changes):
    found = tiny("supervised", model=MLP, evals={"head": {}}, steps=60)
    found["data"], found["labels"] = {"name": "arrays"}, {"name": "all_labels"}
    found["method"] = found["method"] | {"augment": {"name": "identity"}}
    found["optimizer"] = found["optimizer"] | {"learning_rate": 0.05}
    return found | changes


def test_vectors_from_python_train_load_and_evaluate_as_they_are(tmp_path):
    dataset = Dataset(vectors(300), vectors(200, 1), NAMES)
    found = labelfx.train(config(), tmp_path, dataset=dataset)
    assert found["metrics"]["head"]["accuracy"] > 0.8  # means of 1000 apart by 300: not without their scale
    encoder = labelfx.load(tmp_path)
    right = encoder.predict(dataset.test.inputs).argmax(1) == dataset.test.labels  # raw vectors: the scale goes along
    assert right.mean() == found["metrics"]["head"]["accuracy"] and encoder.dtype == "float32"
    again = labelfx.evaluate(tmp_path, dataset=dataset)
    assert again["metrics"] == found["metrics"] and again["labels"] == found["labels"]
    with pytest.raises(ConfigError, match="config.data: arrays come from Python: labelfx.train"):
        labelfx.evaluate(tmp_path)
    changed = dataset._replace(train=dataset.train._replace(labels=dataset.train.labels[::-1].copy()))
    with pytest.raises(ConfigError, match="its rows do not have the labels they had"):
        labelfx.evaluate(tmp_path, dataset=changed)


def test_several_labels_targets_and_no_test_split(tmp_path):
    x = vectors(300)
    several = Split(x.inputs, (np.eye(3)[x.labels] > 0).astype(np.int8))
    targets = Split(x.inputs, np.where(x.labels == 2, np.nan, 50 + 7 * x.labels).astype(np.float32))
    for split, names, objective in (
        (several, NAMES, {"name": "binary_cross_entropy", "unknown": "ignore"}),
        (targets, (), {"name": "squared_error"}),
        (x._replace(columns={"target": np.eye(3, dtype=np.float32)[x.labels]}), NAMES, {"name": "soft_cross_entropy"}),
    ):
        method = config()["method"] | {"objective": objective}
        folder = tmp_path / objective["name"]
        labelfx.train(config(method=method, evals={"rankme": {}}), folder, dataset=Dataset(split, None, names))
        found = labelfx.load(folder).predict(x.inputs)
        if objective["name"] == "squared_error":
            seen = x.labels < 2
            assert np.abs(found[seen, 0] - targets.labels[seen]).mean() < 2
        else:
            assert (found.argmax(1) == x.labels).mean() > 0.8
            assert (abs(found.sum(1) - 1).max() < 1e-5) == (objective["name"] == "soft_cross_entropy")
    with pytest.raises(ConfigError, match="config.evals.head: 'arrays' has no test split; take an eval"):
        labelfx.train(config(), tmp_path / "head", dataset=Dataset(x, None, NAMES))


def test_labels_are_told_apart_by_rank_and_what_is_unknown():
    shapes = {
        "class": np.array([0, -1], np.int32),
        "several": np.array([[1, 0], [-1, -1]], np.int8),
        "dense": np.array([[[0, 1]], [[-1, -1]]], np.int32),
        "tags": np.array([[0, -1], [-1, -1]], np.int32),
        "target": np.array([0.5, np.nan], np.float32),
    }
    for name, labels in shapes.items():
        assert task(labels, ("a", "b")) == name
        assert labelled(labels).tolist() == [True, False]
        np.testing.assert_array_equal(known(labels), ~np.isnan(labels) if name == "target" else labels != -1)
        assert not known(unknown(labels)).any() and unknown(labels).dtype == labels.dtype
    assert task(np.zeros((2, 3, 5), np.float32), ()) == "boxes" and task(shapes["class"], ()) == "none"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train": vectors(9)._replace(labels=np.full(9, 3, np.int32))}, "train.labels lie in 3..3; allowed -1..2"),
        ({"train": vectors(9)._replace(labels=np.zeros(8, np.int32))}, "train.labels has 8 rows, train.inputs 9"),
        ({"train": vectors(9)._replace(labels=np.zeros(9))}, "train.labels is float64; must be int32, int8"),
        ({"train": vectors(9)._replace(inputs=np.zeros((9, 4)))}, "train.inputs is float64; must be uint8, float32"),
        ({"train": vectors(9)._replace(labels=np.full((9, 2), 1, np.int8))}, "int8 .N, 3., a column a class name"),
        ({"train": vectors(9)._replace(columns={"votes": np.zeros((2, 2))})}, r"train.columns\['votes'\] has 2 rows"),
        ({"test": vectors(9)._replace(inputs=np.zeros((9, 5), np.float32))}, r"rows of float32 \[4\], test.inputs of"),
        ({"test": vectors(9)._replace(labels=np.full(9, -1, np.int32))}, "test.labels are all unknown; leave the test"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change, message, tmp_path):
    dataset = Dataset(vectors(20), vectors(9), NAMES)._replace(**change)
    with pytest.raises(ConfigError, match=f"config.data: .*{message}"):
        labelfx.train(config(), tmp_path, dataset=dataset)
    with pytest.raises(ConfigError, match="config.data: name = 'digits': must be 'arrays' where dataset= is given"):
        labelfx.train(config(data={"name": "digits"}), tmp_path, dataset=dataset)


def test_an_objective_without_its_column_is_named(tmp_path):
    method = config()["method"] | {"objective": {"name": "candidates", "loss": "log"}}
    with pytest.raises(ConfigError, match="config.labels gives no 'candidates', which supervised reads; take weak"):
        labelfx.train(config(method=method), tmp_path, dataset=Dataset(vectors(20), vectors(9), NAMES))


def test_classes_of_a_source_may_be_merged_and_left_out(tmp_path):
    split = vectors(60)
    split = split._replace(
        labels=np.where(np.arange(60) % 5, split.labels, -1).astype(np.int32), columns={"time": np.arange(60)}
    )
    dataset = Dataset(split, vectors(30, 1), NAMES)
    whole = merged(dataset, ((2, 0), (1,)))
    assert whole.class_names == ("c/a", "b") and whole.train.inputs is split.inputs
    np.testing.assert_array_equal(whole.train.labels, np.array([0, 1, 0, -1])[split.labels])
    part = merged(dataset, ((1,), (0,)))
    kept = np.flatnonzero(split.labels != 2)
    np.testing.assert_array_equal(part.train.labels, np.array([1, 0, 9, -1])[split.labels[kept]])
    np.testing.assert_array_equal(part.train.inputs, split.inputs[kept])
    np.testing.assert_array_equal(part.train.columns["time"], kept)
    assert len(part.test.labels) == (dataset.test.labels < 2).sum()
    for merge in (((0,), (0,)), ((3,),), ((0,), ())):
        with pytest.raises(ConfigError, match=r"config.data: merge = .*: must be classes 0..2, each once"):
            labelfx.train(config(data={"name": "arrays", "merge": merge}), tmp_path, dataset=dataset)
