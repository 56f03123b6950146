"""The linear evaluation of papers against a loop in NumPy float64, and what it learns; what evals take of memory."""

import functools
import math

import jax
import numpy as np
import pytest
from recipes import recipe, tiny
from sklearn.datasets import load_digits

from experiments.plans import evals as evals_memory
from labelfx.config import ConfigError
from labelfx.data import augment
from labelfx.data.batches import draw
from labelfx.evals import linear, memory
from labelfx.loop import inputs, optim
from labelfx.loop.mesh import make_mesh
from labelfx.models import Model
from labelfx.train import train

SGD = functools.partial(optim.sgd, momentum=0.9, clip_norm=None, accumulate=1)
STEPS = functools.partial(optim.step_decay, at=(0.6, 0.8), factor=0.1)
PLAIN = augment.identity()
FLAT = Model(lambda rng, x: {"params": {}}, lambda variables, x, *, train, rng=None: (x.reshape(len(x), -1), {}))
VARIABLES = {"params": {"backbone": {"used": np.float32(0)}}}


@functools.cache
def digits():
    data = load_digits()
    images, labels = (data.images * 15.9).astype(np.uint8)[..., None], data.target.astype(np.int32)
    return images[:1200], labels[:1200], images[1200:], labels[1200:]


def evaluated(batch=64, *, images=None, test=None, model=FLAT, rate=1.0, changes=PLAIN, **how):
    given, labels, test_inputs, test_labels = digits()
    images = given if images is None else images
    test = test_inputs.reshape(len(test_inputs), -1).astype(np.float32) / 255 if test is None else test
    optimizer = functools.partial(SGD, learning_rate=rate, weight_decay=how.pop("decay", 0.0), schedule=STEPS)
    how = {"epochs": 5, "initial_scale": 0.0} | how
    what = model, VARIABLES, 3, 0, images, labels[: len(images)], test, test_labels, 10
    return linear.linear_evaluation(*what, optimizer=optimizer, batch=batch, augment=changes, **how)


class Lazy:
    """Images that are read a few rows at a time."""

    def __init__(self, images):
        self.images, self.shape, self.dtype = images, images.shape, images.dtype

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        return self.images[rows]


@pytest.mark.parametrize("lazy", [False, True])
def test_it_is_a_loop_of_gradient_descent(lazy, monkeypatch):
    """Of Nesterov's momentum with a rate divided by ten, twice; a batch is encoded in parts, and split over devices."""
    monkeypatch.setattr(linear, "ENCODED", 24)  # 64 images in 4 parts of 16
    images, labels, test, test_labels = digits()
    found = evaluated(images=Lazy(images) if lazy else images, decay=0.01)
    x, kernel, bias = images.reshape(len(images), -1) / 255, np.zeros((64, 10)), np.zeros(10)
    velocity, losses, steps = [0.0, 0.0], [], 5 * (1200 // 64)
    for step in range(steps):
        rows = draw(3, 0, step, 64, np.arange(1200))
        logits = x[rows] @ kernel + bias
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(-np.log(p[np.arange(64), labels[rows]]).mean())
        slope = (p - np.eye(10)[labels[rows]]) / 64
        gradient = x[rows].T @ slope + 0.01 * kernel, slope.sum(axis=0)
        rate = 0.1 ** sum(step >= round(part * steps) for part in (0.6, 0.8))
        velocity = [0.9 * v + g for v, g in zip(velocity, gradient, strict=True)]
        kernel, bias = (w - rate * (g + 0.9 * v) for w, g, v in zip((kernel, bias), gradient, velocity, strict=True))
    predicted = np.argmax(test.reshape(len(test), -1) / 255 @ kernel + bias, axis=1)
    assert found == {
        "accuracy": pytest.approx(np.mean(predicted == test_labels), abs=1e-9),
        "loss": pytest.approx(np.mean(losses[-18:]), rel=1e-5),
        "steps": 90,
        "split": "test",
        "n": 597,
        "n_labels": 1200,
    }
    assert found["accuracy"] > 0.8


def test_every_image_is_augmented_anew_in_every_step():
    def noise(rng, images):
        return jax.random.normal(rng, (len(images), 1, 1, 1))

    def encoded(step, first):
        how = {"apply": FLAT.apply, "augment": noise}
        return np.asarray(linear._encode({}, np.zeros((8, 1, 1, 1)), jax.random.key(0), np.int32([step, first]), **how))

    drawn = [encoded(*place) for place in ((0, 0), (0, 8), (1, 0), (8, 0), (1, 8))]
    assert len(np.unique(drawn)) == 5 * 8
    np.testing.assert_array_equal(encoded(1, 8), drawn[-1])


def test_batchnorm_stays_in_evaluation_mode_and_the_kernel_starts_as_stated():
    trains = []

    def apply(variables, x, *, train, rng=None):
        trains.append(train)
        return x.reshape(len(x), -1), {}

    common = {"model": Model(FLAT.init, apply), "epochs": 1, "rate": 1e-30}
    assert evaluated(initial_scale=0.0, **common)["loss"] == pytest.approx(math.log(10), rel=1e-5)
    assert evaluated(initial_scale=0.5, **common)["loss"] > 2.5
    assert trains and not any(trains)


def test_what_cannot_be_is_one_line():
    with pytest.raises(ValueError, match="^batch = 1201: more than the 1200 labelled images$"):
        evaluated(batch=1201)
    with pytest.raises(ValueError, match="^the loss of the last epoch is (nan|inf): take a smaller learning_rate$"):
        evaluated(rate=1e38, decay=1.0, epochs=1)


def evals(**changes):
    optimizer = {"name": "sgd", "learning_rate": 1.0, "momentum": 0.9, "weight_decay": 0.0, "clip_norm": None}
    optimizer |= {"accumulate": 1, "schedule": {"name": "cosine", "warmup_steps": 0}}
    how = {"optimizer": optimizer, "epochs": 20, "batch": 64, "initial_scale": 0.0, "augment": {"name": "identity"}}
    return {"linear_evaluation": how | changes}


def test_a_run_is_evaluated_so(tmp_path):
    config = tiny("simclr", evals=evals(), labels={"name": "all_labels"})
    assert train(config, tmp_path)["metrics"]["linear_evaluation"]["accuracy"] > 0.6


def test_a_run_does_not_begin_where_an_eval_could_not_end(tmp_path, monkeypatch):
    few = {"labels": {"name": "per_class", "k": 3}}
    with pytest.raises(
        ConfigError, match="^config.evals.linear_evaluation.batch = 64: must be at most the 30 labelled"
    ):
        train(tiny("simclr", evals=evals(), **few), tmp_path)
    colours = {"augment": recipe("papers/simclr_cifar10")["method"]["augment"]}
    for own in (evals(**colours), {"score_distribution": colours}):
        (name,) = own
        with pytest.raises(ConfigError, match=f"^config.evals.{name}.augment: simclr takes RGB images, got shape"):
            train(tiny("simclr", evals=own, labels={"name": "all_labels"}), tmp_path)
    monkeypatch.setattr(inputs, "machine_memory", lambda: 10**4)
    line = (
        r"^config.evals.linear_probe: takes \S+ GB of the 1e-05 GB of this machine for 30 labelled images; leave it out"
    )
    with pytest.raises(ConfigError, match=line):
        train(tiny("simclr", evals={"linear_probe": {}}, **few), tmp_path)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("name", ["linear_probe", "knn"])
def test_what_is_stated_is_what_the_compiler_counts(name, devices):
    """At ImageNet's size on ResNet-50: no less, and not twice as much."""
    sizes = evals_memory.IMAGENET._replace(devices=devices)
    mesh = make_mesh(devices, 1, jax.devices())
    counted = evals_memory.compiled(name, sizes, mesh)
    stated = memory.needs(name, evals_memory.EVALS[name], (), sizes).device
    print(f"{name} on {devices}: stated {stated / 1e9:.2f} GB, compiled {counted / 1e9:.2f} GB")
    assert counted <= stated < 2 * counted
