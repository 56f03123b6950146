"""INFER: images with one compensator for all classes of a set (Zhang et al. 2024, arXiv 2408.06927, "Breaking Class
Barriers: Efficient Dataset Distillation via Inter-Class Feature Compensator", and their code)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.condensed import Condensed
from labelfx.condensed._shared import as_bytes, check_teachers, drawn, floats, minimise, softmax, teachers_logits
from labelfx.config import ConfigError
from labelfx.config.annotations import NonNegative, NonNegativeInt, Positive, PositiveInt
from labelfx.derived import Finished
from labelfx.models import Model, batch_statistics
from labelfx.objectives.classification import cross_entropy


def compensate(
    runs: tuple[Finished, ...],
    rng: np.random.Generator,
    *,
    per_class: PositiveInt,
    steps: NonNegativeInt,
    learning_rate: Positive,
    statistics_weight: NonNegative,
    jitter: NonNegativeInt,
) -> Condensed:
    """Sets of one natural image of each class, and of each set for each teacher a copy with a compensator u
    [H, W, C] added to all of its images: `compensator` says by which loss. Soft labels are the softmax of the mean of
    the teachers' logits.

    `per_class` counts what is stored, as the paper does: natural images and compensators together are as many as
    `per_class` images of each class, or the next fewer that are whole sets. Of M teachers and C classes that is
    k = floor(per_class C / (C + M)) sets, and the result has k (M + 1) images of each class. The authors' settings:
    steps 1000, learning_rate 0.1 of images scaled to unit variance, statistics_weight 0.05 with ten times as much on
    the first layer, jitter 4, four teachers. Pixels outside [0, 1] are cut off at the end, not while u is sought, and
    the last u is kept; both as in their code. It mixes the logits of two images before the softmax; a student of
    labelfx mixes the softmax.

    Raises:
      ConfigError: a run trained no classifier of these images, or has no BatchNorm; `per_class` is less than a set.
    """
    check_teachers(runs)
    classes = len(runs[0].encoder.class_names)
    sets = per_class * classes // (classes + len(runs))
    if not sets:
        raise ConfigError(f"per_class = {per_class}: less than a set of {classes} images and {len(runs)} compensators")
    for run in runs:
        if "batch_stats" not in run.variables:
            raise ConfigError(f"{run.place}: has no BatchNorm, whose statistics compensators are made to match")
    natural, labels = drawn(runs[0], rng, sets)
    every = [natural]
    for run in runs:
        find = jax.jit(
            functools.partial(
                compensator,
                run.network,
                run.variables,
                steps=steps,
                learning_rate=learning_rate,
                statistics_weight=statistics_weight,
                jitter=jitter,
            )
        )
        keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), sets)
        found = [find(floats(images), label, key) for images, label, key in zip(natural, labels, keys, strict=True)]
        every.append(np.stack([as_bytes(floats(x) + u) for x, u in zip(natural, found, strict=True)]))
    images = np.stack(every).reshape(-1, *natural.shape[2:])
    return Condensed(images, np.tile(labels.ravel(), len(every)), softmax(teachers_logits(runs, images)))


def compensator(
    network: Model,
    variables: dict,
    images: jax.Array,
    label: jax.Array,
    rng: jax.Array,
    *,
    steps: int,
    learning_rate: float,
    statistics_weight: float,
    jitter: int,
) -> jax.Array:
    """u, float [1, H, W, C], by Adam from 0: the cross-entropy of the classifier in evaluation mode on images + u, plus
    `statistics_weight` times the distance of the batch's BatchNorm statistics from the running ones, the sum over
    layers of the lengths of both differences, of means and of variances. In each step the images are rolled by up to
    `jitter` pixels each way.

    Args:
      network: gives {"head": [B, C]}, with its `variables`.
      images: float [B, H, W, C] in [0, 1].
      label: int32 [B].
    """
    running = variables["batch_stats"]

    def loss(u, rng):
        rows = jnp.roll(images + u, jax.random.randint(rng, (2,), 0, jitter + 1), (1, 2))
        logits = network.apply(variables, rows, train=False)[0]["head"]
        away = jax.tree.map(lambda x, y: x - y, batch_statistics(network, variables, rows), running)
        distance = sum(jnp.sqrt(jnp.sum(jnp.square(x)) + 1e-12) for x in jax.tree.leaves(away))
        return cross_entropy(logits, label, label_smoothing=0.0) + statistics_weight * distance

    return minimise(loss, jnp.zeros_like(images[:1]), rng, steps, learning_rate)
