"""Collapse: the embeddings and assignments of tiny problems with what each paper says prevents it, and without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from labelfx.methods.self_supervised.dino import dino
from labelfx.methods.self_supervised.siamese import siamese
from labelfx.methods.self_supervised.swav import swav
from labelfx.models.backbones import mlp
from labelfx.models.heads import projector, siamese_mlp
from labelfx.objectives.contrastive import byol

SEEDS, STEPS = 10, 200
BACKBONE = mlp(hidden=(16,), dtype="float32")
PLAIN = projector(hidden=(16,), features=8, batch_norm=False, dtype="float32")
NORMED = siamese_mlp(hidden=(16,), features=8, output_norm=False, dtype="float32")


def jitter(rng, images):
    return images + 0.2 * jax.random.normal(rng, images.shape, images.dtype)


def clusters(seed):
    """64 rows of four clusters in eight dimensions, as images."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, 8))[np.arange(64) % 4] + 0.1 * rng.normal(size=(64, 8))
    return (0.5 + 0.25 * x).astype(np.float32).reshape(64, 1, 8, 1)


def last_metrics(build, **settings):
    """Of a run of each seed with each of the settings, [settings, seeds]; means over the last ten steps."""
    images = np.stack([clusters(seed) for seed in range(SEEDS)])
    keys = jax.random.split(jax.random.key(0), SEEDS)

    def train(values, images, key):
        method, batch = build(**values), {"unlabelled": {"input": images}}
        start = method.init(jax.random.fold_in(key, 0), batch)
        return jax.lax.scan(lambda s, k: method.step(s, batch, k), start, jax.random.split(key, STEPS))[1]

    over_seeds = jax.vmap(train, in_axes=(None, 0, 0))
    metrics = jax.jit(jax.vmap(over_seeds, in_axes=(0, None, None)))(
        {name: np.asarray(values, np.float32) for name, values in settings.items()}, images, keys
    )
    return {name: np.asarray(values[..., -10:]).mean(-1) for name, values in metrics.items()}


def assert_more(right, wrong, by):
    """Seed by seed, by at least this much on average and more than three standard errors."""
    margin = right - wrong
    error = margin.std(ddof=1) / np.sqrt(len(margin))
    print(f"{right.mean():.3f} against {wrong.mean():.3f}: margin {margin.mean():.3f}, standard error {error:.3f}")
    assert margin.mean() > max(by, 3 * error)


def test_without_a_predictor_siamese_networks_collapse():
    """Both BYOL and SimSiam keep the embeddings of four clusters apart, near 1 / sqrt(8) = 0.35. Without the predictor
    (an identity in its place) they contract, fastest where the target is the network itself (SimSiam's ablation)."""

    def build(predicts, **settings):
        def predict(variables, x, **how):  # or not: one program for both
            prediction, model_state = NORMED.apply(variables, x, **how)
            return jnp.where(predicts, prediction, x), model_state

        settings |= {"augment": jitter, "projector": NORMED, "predictor": NORMED._replace(apply=predict)}
        return siamese(BACKBONE, optax.sgd(0.1, 0.9), STEPS, objective=byol, **settings)

    settings = {"momentum": [0.9, 0.9, 0, 0], "final_momentum": [1, 1, 0, 0], "predicts": [1, 0, 1, 0]}
    with_byol, without_byol, with_simsiam, without_simsiam = last_metrics(build, **settings)["embedding_std"]
    assert min(with_byol.min(), with_simsiam.min()) > 0.25
    assert_more(with_byol, without_byol, by=0.1)
    assert_more(with_simsiam, without_simsiam, by=0.25)


def information(metrics):
    """Of the assignment about the image, in nats."""
    return metrics["usage_entropy"] - metrics["assignment_entropy"]


@pytest.mark.slow
def test_without_sinkhorn_swav_collapses():
    """With assignments that need not use all prototypes alike (0 iterations), all images go to one."""
    build = functools.partial(swav, BACKBONE, optax.sgd(0.1, 0.9), augment=jitter, projector=PLAIN, prototypes=8)
    right, wrong = (
        information(last_metrics(functools.partial(build, iterations=n), temperature=[0.1], epsilon=[0.05]))[0]
        for n in (3, 0)
    )
    assert_more(right, wrong, by=0.8)
    assert wrong.max() < 0.01


def test_without_centring_or_sharpening_dino_collapses():
    """Without centring (momentum 1 keeps the centre at 0) one prototype takes all; without sharpening (the student's
    temperature for the teacher) every image is spread over all prototypes. With both the clusters are told apart."""
    build = functools.partial(dino, BACKBONE, optax.sgd(0.03, 0.9), STEPS, augment=jitter, projector=PLAIN)
    build = functools.partial(build, prototypes=8, momentum=0.9, final_momentum=1.0, student_temperature=0.1)
    metrics = last_metrics(build, teacher_temperature=[0.04, 0.04, 0.1], center_momentum=[0.9, 1.0, 0.9])
    found = information(metrics)
    assert_more(found[0], found[1], by=0.2)
    assert_more(found[0], found[2], by=0.5)
    assert metrics["usage_entropy"][1].mean() < 0.3 * np.log(8)
    assert metrics["assignment_entropy"][2].mean() > 0.9 * np.log(8)
