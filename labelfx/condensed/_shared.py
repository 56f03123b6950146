"""What condensations share: teachers, images, their soft labels, a descent on pixels."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from labelfx.config import ConfigError
from labelfx.data import known
from labelfx.data.augment import to_float
from labelfx.derived import Finished
from labelfx.evals import head_outputs


def check_teachers(runs: tuple[Finished, ...]) -> None:
    """ConfigError where a run is no classifier of images, or of other images or classes than the first."""
    first = runs[0].encoder
    for run in runs:
        other = run.encoder
        if other.head is None or other.task != "class":
            raise ConfigError(f"{run.place}: trained no classifier that names one class a row")
        if other.dtype != "uint8" or (other.shape, other.class_names) != (first.shape, first.class_names):
            raise ConfigError(f"{run.place}: must be of uint8 images, with the shape and classes of {runs[0].place}")


def drawn(run: Finished, rng: np.random.Generator, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """As many labelled images of each class, in shuffled order: uint8 [per_class, classes, H, W, C], and their classes
    int32 [per_class, classes].

    ConfigError where a class has fewer.
    """
    dataset, view = run.data
    labels = view.split.labels
    rows = []
    for c, name in enumerate(dataset.class_names):
        own = np.flatnonzero(known(labels) & (labels == c))
        if len(own) < per_class:
            raise ConfigError(f"{run.place}: {len(own)} labelled images of the class {name}, fewer than {per_class}")
        rows.append(rng.permutation(own)[:per_class])
    chosen = np.stack(rows, 1)
    images = view.split.inputs[chosen.ravel()]
    return images.reshape(*chosen.shape, *images.shape[1:]), labels[chosen]


def teachers_logits(runs: tuple[Finished, ...], images: np.ndarray) -> np.ndarray:
    """The mean over classifiers of their logits of images uint8 [N, H, W, C]: float32 [N, classes]."""
    found = []
    for run in runs:
        encoder = run.encoder
        assert encoder.head is not None
        found.append(head_outputs(encoder.model, encoder.variables, *encoder.head, images))
    return np.mean(found, 0)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(jax.nn.softmax(logits, axis=-1), np.float32)


def as_bytes(images: jax.Array) -> np.ndarray:
    """Floats, 1 for white and cut to [0, 1], as uint8."""
    return np.round(np.clip(np.asarray(images), 0, 1) * 255).astype(np.uint8)


def minimise(
    loss: Callable[[Any, jax.Array], jax.Array], start: jax.Array, rng: jax.Array, steps: int, learning_rate: float
) -> jax.Array:
    """The last of `steps` steps of Adam on `loss(x, rng)`, with b1 0.5, b2 0.9 and a cosine schedule to 0."""
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, max(1, steps)), b1=0.5, b2=0.9)

    def step(carry, rng):
        x, state = carry
        updates, state = tx.update(jax.grad(loss)(x, rng), state)
        return (optax.apply_updates(x, updates), state), None

    with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counts with floats
        (x, _), _ = jax.lax.scan(step, (start, tx.init(start)), jax.random.split(rng, steps))
    return x


def floats(images: np.ndarray) -> jax.Array:
    return to_float(jax.numpy.asarray(images))
