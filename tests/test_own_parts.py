"""A weak loss, a source of rows, a rule and a kind of noise of one's own: each a file of a few lines in `LABELFX_PATH`,
the examples of README.md."""

import jax
import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx import config as configs
from labelfx.config import rooms
from labelfx.hardware import plans, tpu
from labelfx.hardware.blank import blank_dataset

FILES = {
    "objectives/confident.py": '''"""A loss of rows by what is said of them: its parameters are columns."""

import jax
import jax.numpy as jnp


def confident(logits, candidates, *, sharpness: float):
    """Minus the log of the largest probability among the candidates, to a power."""
    inside = jnp.where(candidates, jax.nn.log_softmax(logits), -jnp.inf)
    return -jnp.mean(sharpness * jnp.max(inside, -1))
''',
    "data/sources/rings.py": '''"""Rows of one's own: vectors, with a class each."""

import numpy as np

from labelfx.data import Dataset, Split


def blank_rings() -> Dataset:
    """The shapes."""
    return Dataset(Split(np.zeros((200, 2), np.float32), np.zeros(200, np.int32)), None, ("inner", "outer"))


def rings(*, noise: float) -> Dataset:
    """Points on two rings."""
    rng = np.random.default_rng(0)
    label = np.arange(300, dtype=np.int32) % 2
    angle, radius = rng.uniform(0, 6.28, 300), 1 + label + noise * rng.normal(size=300)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)
    return Dataset(Split(points[:200], label[:200]), Split(points[200:], label[200:]), ("inner", "outer"))
''',
    "labels/rules/certain.py": '''"""What the next round is taught, by the network of this one."""

from labelfx.labels.rules import given


def certain(evidence, rng, *, threshold: float):
    """Rows of a probability above the threshold take their class."""
    said = given(evidence, rng)
    sure = ~said["pinned"] & (evidence.probs.max(1) > threshold)
    said["label"] = said["label"].copy()
    said["label"][sure] = evidence.probs.argmax(1)[sure]
    said["weight"] += sure
    return said
''',
    "data/weak/tired.py": '''"""What is said of the rows in the place of the truth."""

import numpy as np

from labelfx.data.weak import Said


def tired(label, rng, num_classes, *, rate: float):
    """An annotator who errs more and more towards the end of the data set."""
    wrong = rng.random(len(label)) < rate * np.arange(len(label)) / len(label)
    given = np.where(wrong, (label + 1) % num_classes, label).astype(label.dtype)
    return Said({"label": given}, audit={"noise": wrong})
''',
}
PLAIN = {"name": "cross_entropy", "label_smoothing": 0.0}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder in `LABELFX_PATH`, into which rooms look no longer afterwards."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for cached in (rooms._functions, rooms._open):
        cached.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABELFX_PATH", str(folder))
        for room in (rooms.load(f"labelfx.{where}") for where in rooms.ROOMS):
            patch.setattr(room, "__path__", [*getattr(room, "__path__", ())], raising=False)
        yield
    for cached in (rooms._functions, rooms._open):
        cached.cache_clear()


@pytest.fixture
def rings():
    """A run on them, in a network of two dense layers."""
    base = tiny("supervised", evals={"head": {}}, data={"name": "rings", "noise": 0.05})
    base |= {"labels": {"name": "all_labels"}, "model": {"name": "mlp", "hidden": (32,), "dtype": "float32"}}
    return base | {"method": base["method"] | {"augment": {"name": "identity"}}}


def test_a_source_of_ones_own_has_a_plan(own, rings, monkeypatch):
    monkeypatch.setattr(tpu, "devices_of", lambda topology: jax.devices()[:1])
    monkeypatch.setattr(tpu, "take_compiler", lambda: None)
    assert plans.plan(rings, ["v5e:1x1"]).splitlines()[2].startswith("| v5e:1x1 | 1 | 1 | yes |")
    config = configs.check(rings)
    shapes, real = blank_dataset(config, None, None, None), configs.build(configs.DATA, config.data)
    for one, other in zip(shapes.train[:2], real.train[:2], strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert "blank_rings" not in configs.names(configs.DATA)
    with pytest.raises(configs.ConfigError, match="--num_examples: blank_rings says it; leave it out"):
        blank_dataset(config, None, None, 10)


def test_each_is_one_file(own, tmp_path):
    base = tiny("supervised", steps=100, evals={"head": {}}, data={"name": "rings", "noise": 0.05})
    base |= {"labels": {"name": "all_labels"}, "model": {"name": "mlp", "hidden": (32,), "dtype": "float32"}}
    base["optimizer"] = base["optimizer"] | {"learning_rate": 0.03}
    method = base["method"] | {"augment": {"name": "identity"}, "objective": PLAIN}
    relabelling = {
        "name": "relabelling",
        "augment": {"name": "identity"},
        "objective": PLAIN,
        "rule": {"name": "given"},
    }
    partial = {"name": "all_labels", "weak": {"name": "partial", "rate": 0.2}}
    rounds = ({}, {"method": relabelling | {"rule": {"name": "certain", "threshold": 0.8}}})
    for name, config in {
        "source": {"method": method},
        "loss": {"method": method | {"objective": {"name": "confident", "sharpness": 1.0}}, "labels": partial},
        "noise": {"method": method, "labels": {"name": "all_labels", "weak": {"name": "tired", "rate": 0.2}}},
        "rule": {
            "method": relabelling,
            "phases": rounds,
            "labels": {"name": "per_class", "k": 10},
            "batch": {"labelled": 0, "unlabelled": 16},
        },
    }.items():
        found = labelfx.train(base | config, tmp_path / name)
        assert found["metrics"]["head"]["accuracy"] > (0.8 if name in ("source", "loss") else 0.6), name
        assert "data/sources/rings.py" in found["outside"] and len(found["outside"]) == 1 + (name != "source")
    assert all(len(text.splitlines()) < 20 for text in FILES.values())
    assert np.isfinite(found["metrics"]["head"]["negative_log_likelihood"])
