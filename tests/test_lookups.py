"""What augmentation picks by index, as a TPU computes it but run here: the same bits, and no gather and no scatter."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_augment import RANDAUGMENT

from labelfx.data import augment


def both(monkeypatch, function, *args):
    """The results of the default and of what a TPU is given."""
    results = []
    for platform in ("default", "tpu"):
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, p=platform, **branches: branches[p](*args))
        results.append(np.asarray(jax.jit(jax.vmap(lambda *args: function(*args)))(*args)))  # traced afresh
    return results


@pytest.fixture(scope="module")
def images():
    """Random ones, wide ones of few levels, and flat channels."""
    rng = np.random.default_rng(0)
    noise, few = rng.integers(0, 256, (24, 16, 16, 3)), rng.integers(200, 205, (24, 10, 20, 3))
    few[..., 1] = 7
    return [np.float32(x) / np.float32(255) for x in (noise, few)]


def test_equalize(monkeypatch, images):
    for batch in images:
        default, tpu = both(monkeypatch, augment.equalize, batch)
        np.testing.assert_array_equal(tpu, default)
    assert len(np.unique(default)) > 3


def test_affine(monkeypatch, images):
    """Rotations by up to 30 degrees either way, shears and translations: as far as they go, and not at all."""
    for batch in images:
        shape, strength = batch.shape[1:3], jnp.linspace(-1, 1, len(batch))
        for kind in range(5):
            matrix = jnp.stack([augment._affine_maps(each, *shape)[kind] for each in [*strength[1:], jnp.float32(0)]])
            default, tpu = both(monkeypatch, augment.affine, batch, matrix)
            np.testing.assert_array_equal(tpu, default)
            assert (default[:-1] == 0.5).any((1, 2, 3)).sum() > len(batch) / 2
            np.testing.assert_array_equal(tpu[-1], batch[-1])


def test_shift(monkeypatch, images):
    for batch in images:
        rngs = jax.random.split(jax.random.key(1), len(batch))
        default, tpu = both(monkeypatch, lambda rng, image: augment.random_shift(rng, image, 3), rngs, batch)
        np.testing.assert_array_equal(tpu, default)
        assert (default != batch).any((1, 2, 3)).sum() > len(batch) / 2


@pytest.mark.parametrize("name", ["randaugment", "crop_flip"])
def test_a_tpu_is_given_no_gather_and_no_scatter(name):
    preset = augment.randaugment(**RANDAUGMENT) if name == "randaugment" else augment.crop_flip(padding=4, flip=True)
    traced = jax.jit(preset).trace(jax.random.key(0), jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.uint8))
    found = {
        platform: set(re.findall(r"\b(gather|scatter)\b", traced.lower(lowering_platforms=(platform,)).as_text()))
        for platform in ("tpu", "cpu")
    }
    assert not found["tpu"] and "gather" in found["cpu"]
