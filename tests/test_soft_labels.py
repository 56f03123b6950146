"""Networks taught distributions over classes, and what mixing makes of rows."""

import numpy as np
import pytest
from recipes import recipe

import labelfx
from labelfx.config import ConfigError
from labelfx.data import Dataset, Split

CLASSES = ("a", "b", "c")


def opinions(rows, seed):
    """Points of which people say three classes, the less unanimously the nearer the middle; the label is what most
    say."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, 2)).astype(np.float32)
    scores = 1.5 * inputs @ np.array([[1, -0.5, -0.5], [0, 0.9, -0.9]])
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    target = np.stack([rng.multinomial(50, p) for p in share]).astype(np.float32) / 50
    return Split(inputs, target.argmax(1).astype(np.int32), {"target": target})


def config_of(**changes):
    config = recipe("soft_labels") | {"data": {"name": "arrays"}, "devices": 1, "steps": 80}
    config["model"] = {"name": "mlp", "hidden": (16,), "dtype": "float32"}
    config["method"]["augment"] = {"name": "identity"}
    config["optimizer"]["learning_rate"] = 3e-2
    return config | changes


def test_shares_teach_doubt_and_majorities_do_not(tmp_path):
    """The distance to what people say of new points, for one network."""
    data = Dataset(opinions(300, 0), opinions(300, 1), CLASSES)
    soft = labelfx.train(config_of(), tmp_path / "soft", dataset=data)["metrics"]["soft_labels"]
    method = config_of()["method"] | {"objective": {"name": "cross_entropy", "label_smoothing": 0.0}}
    config = config_of(labels={"name": "all_labels"}, method=method)
    hard = labelfx.train(config, tmp_path / "hard", dataset=data)["metrics"]["soft_labels"]
    assert hard["kl"] > 5 * soft["kl"] and abs(hard["accuracy"] - soft["accuracy"]) < 0.1


def test_a_set_without_shares_is_refused(tmp_path):
    data = Dataset(opinions(20, 0), opinions(20, 1)._replace(columns={}), CLASSES)
    with pytest.raises(ConfigError, match="config.evals.soft_labels: 'arrays' has no column 'target' of its test rows"):
        labelfx.train(config_of(), tmp_path, dataset=data)
