"""What keeps methods of two views from collapsing, and what makes them indifferent to the view: each has an ablation,
the same code with one setting changed, that must fail a tiny problem at an equal budget.

An image holds three signs and five numbers. Noise of 0.1 to 0.7 falls on the signs from view to view and drowns the
numbers. Networks are linear, so that all ten seeds of both settings train in one compiled loop.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from labelfx import objectives
from labelfx.methods.self_supervised.contrastive import contrastive
from labelfx.methods.self_supervised.feature_transform import feature_transform
from labelfx.methods.self_supervised.moco import moco
from labelfx.methods.self_supervised.whitening import whitening
from labelfx.models import Model
from labelfx.objectives.contrastive import nt_xent

SEEDS = np.arange(10)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9))


def affine(width):
    def init(rng, x):
        return {"params": {"w": jax.random.normal(rng, (x[0].size, width)) / jnp.sqrt(x[0].size)}}

    return Model(init, lambda variables, x, *, train, rng=None: (x.reshape(len(x), -1) @ variables["params"]["w"], {}))


def draw(seed, count):
    """Images [count, 1, 1, 8] and their signs."""
    rng = np.random.default_rng(seed)
    signs, numbers = rng.choice([-1.0, 1.0], (count, 3)), rng.normal(size=(count, 5))
    return np.concatenate([signs, numbers], 1)[:, None, None].astype(np.float32), signs


def scale(spread):
    return np.array([*spread, *[1.5] * 5], np.float32)[None, None, None]


def disturb(spread):
    return lambda rng, images: images + scale(spread) * jax.random.normal(rng, images.shape)


def trained(method, seed, images):
    """The product of the network's weights after a step on each batch of images [steps, batch, 1, 1, 8]."""
    rng = jax.random.key(seed)
    audit = {"unlabelled": {"label": jnp.full(images.shape[1], -1, jnp.int32)}}

    def step(state, batch):
        t, image = batch
        return method.step(state, {"unlabelled": {"input": image}, "audit": audit}, jax.random.fold_in(rng, t))[0], None

    state = method.init(rng, {"unlabelled": {"input": images[0]}})
    params = method.variables(jax.lax.scan(step, state, (jnp.arange(len(images)), images))[0])["params"]
    return params["backbone"]["w"] @ params["projector"]["w"]


def batches(steps, size):
    """Images of every seed, [10, steps, size, 1, 1, 8]."""
    return np.stack([draw(seed, steps * size)[0].reshape(steps, size, 1, 1, -1) for seed in SEEDS])


def readable(weights):
    """The share of the signs that a linear readout, its penalty fixed at 0.1, finds in embeddings: 0 if collapsed."""
    images, signs = draw(len(SEEDS), 512)
    z = images[:, 0, 0] @ weights
    z = z - z.mean(0)
    covariance = z.T @ signs / len(z)
    return np.mean(np.sum(covariance * np.linalg.solve(z.T @ z / len(z) + 0.1 * np.eye(z.shape[1]), covariance), 0))


def agreement(weights, spread):
    """Mean cosine of two views of an image."""
    rng = np.random.default_rng(0)
    images, _ = draw(len(SEEDS), 512)
    views = ((images + scale(spread) * rng.normal(size=images.shape))[:, 0, 0] @ weights for _ in range(2))
    first, second = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in views)
    return np.mean(np.sum(first * second, 1))


def report(correct, ablated):
    """Prints and returns the mean margin and its standard error over paired seeds."""
    margin = correct - ablated
    mean, error = margin.mean(), margin.std(ddof=1) / np.sqrt(len(margin))
    print(f"{correct.mean():.3f} against {ablated.mean():.3f}: margin {mean:.3f}, standard error {error:.3f}")
    return mean, error


WIDE, NARROW = (0.3, 0.5, 0.7), (0.1, 0.2, 0.3)
W_MSE = partial(whitening, views=2, group_size=32, iterations=1, normalise=False)


def agreeing(objective, **settings):
    return lambda **changed: partial(contrastive, objective=partial(objective, **settings, **changed))


PROBLEMS = {  # noise on the signs, method, and the setting that is 0 or nearly 1 where it must fail
    "w_mse": (WIDE, partial(partial, W_MSE), "epsilon", (0.0, 0.999)),
    "vicreg": (NARROW, agreeing(objectives.vicreg, invariance=25.0, covariance=1.0), "variance", (25.0, 0.0)),
    "barlow_twins": (WIDE, agreeing(objectives.barlow_twins), "redundancy", (1.0, 0.0)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_embeddings_do_not_collapse(name):
    """The three signs can be read from three dimensions; where what prevents collapse is switched off they cannot.

    W-MSE with the covariance shrunk by 0.999 to the identity is a plain distance of views: every weight goes to 0, and
    so it does for VICReg without its variance term. Barlow Twins without redundancy reduction has each dimension agree
    best on its own: all end up near the sign with the least noise, and the others are lost.
    """
    spread, build, changed, settings = PROBLEMS[name]

    def weights(setting, seed, images):
        method = build(**{changed: setting})(affine(6), OPTIMIZER, augment=disturb(spread), projector=affine(3))
        return trained(method, seed, images)

    both = jax.jit(jax.vmap(jax.vmap(weights, (None, 0, 0)), (0, None, None)))
    found = np.asarray(both(np.array(settings, np.float32), SEEDS, batches(150, 64)))
    correct, ablated = (np.array([readable(each) for each in of_setting]) for of_setting in found)
    mean, error = report(correct, ablated)
    assert mean > 3 * error and mean > 0.3
    assert correct.mean() > 0.7 and ablated.mean() < (0.65 if name == "barlow_twins" else 0.01)


def test_views_say_what_to_keep():
    """The signs, of which two views know each other, are kept, and the numbers, which differ from view to view, are not
    (SimCLR, Chen et al. 2020, section 3).

    Where both views are the image itself all eight dimensions tell images apart, and three hold a mixture of them.
    """

    def weights(augment):
        method = contrastive(
            affine(6), OPTIMIZER, augment=augment, projector=affine(3), objective=partial(nt_xent, temperature=0.1)
        )
        return np.asarray(jax.jit(jax.vmap(partial(trained, method)))(SEEDS, batches(150, 64)))

    found = weights(disturb(WIDE)), weights(lambda rng, images: images)
    augmented, same = (np.array([readable(each) for each in of_views]) for of_views in found)
    mean, error = report(augmented, same)
    assert mean > 3 * error and augmented.mean() > 0.9 and same.mean() < 0.4


def test_a_queue_has_the_negatives_that_a_small_batch_lacks():
    """MoCo of two images a batch finds more of the signs in as many steps with 64 keys in the queue than with the last
    two, a batch's own number (He et al. 2020, figure 3). A seed's figure is the mean of eight networks and their
    images, since one alone finds two or three signs by chance.

    That a key encoder without momentum learns worse, the paper's other claim, does not show on this problem and is not
    asserted.
    """
    each, steps, size = 8, 200, 2
    seeds = np.arange(len(SEEDS) * each)
    images = np.stack([draw(seed, steps * size)[0].reshape(steps, size, 1, 1, -1) for seed in seeds])

    def found(queue_size):
        network = dict(augment=disturb(WIDE), projector=affine(3), temperature=0.1, momentum=0.9)
        method = moco(affine(6), OPTIMIZER, **network, queue_size=queue_size)
        weights = np.asarray(jax.jit(jax.vmap(partial(trained, method)))(seeds, images))
        return np.array([readable(each) for each in weights]).reshape(-1, each).mean(1)

    mean, error = report(found(64), found(size))
    assert mean > 3 * error


def test_feature_transformation_makes_moco_indifferent_to_the_view():
    """Views agree more after as many steps against extrapolated positives, and the signs are kept (Zhu et al. 2021).

    Without the transform positives are easy and the eight dimensions keep much of the noise that views differ in.
    Interpolated negatives alone, or with interpolated positives, gain about half as much and fail.
    """
    network = dict(augment=disturb(WIDE), projector=affine(8), temperature=0.2, momentum=0.9, queue_size=128)

    def weights(build, **alphas):
        method = build(affine(8), OPTIMIZER, **network, **alphas)
        return np.asarray(jax.jit(jax.vmap(partial(trained, method)))(SEEDS, batches(100, 32)))

    harder, plain = weights(feature_transform, positive_alpha=2.0, negative_alpha=1.6), weights(moco)
    mean, error = report(*(np.array([agreement(each, WIDE) for each in found]) for found in (harder, plain)))
    assert mean > 3 * error and mean > 0.1
    assert min(map(readable, harder)) > 0.9
