"""Losses of rows with several labels against loop-form NumPy in float64, at their edges, and what ASL is for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import sigmoid, worst_error

from labelfx.objectives.multilabel import asymmetric, binary_cross_entropy

EXACT = 1e-12
LABEL = np.array([[1, 0, -1], [-1, -1, -1], [0, 0, 1], [-1, 1, -1], [0, -1, 0]], np.int8)
PUBLISHED = {"gamma_positive": 0.0, "gamma_negative": 4.0, "clip": 0.05}


def logits_of(*shape, seed=0, scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=shape)


def loop(z, losses, weight, unknown, label=LABEL):
    """`losses` gives the loss of a positive and of a negative entry."""
    rows = []
    for row, labels, weights in zip(z, label, weight, strict=True):
        if (labels < 0).all():
            continue
        entries = []
        for score, y, w in zip(row, labels, weights, strict=True):
            if w and (y >= 0 or unknown == "negative"):
                entries.append(w * losses(score)[0 if y == 1 else 1])
        if entries:
            rows.append(sum(entries))
    return sum(rows) / len(rows)


def loop_binary(z):
    return -np.log(sigmoid(z)), -np.log(1 - sigmoid(z))


@pytest.mark.parametrize("unknown", ["ignore", "negative"])
@pytest.mark.parametrize(
    "weight", [None, np.array([1.0, 1, 0.5, 2, 0]), np.random.default_rng(0).integers(0, 3, (5, 3)).astype(np.float64)]
)
def test_binary_cross_entropy(unknown, weight):
    each = 1.0 if weight is None else weight if weight.ndim == 2 else weight[:, None]
    expected = functools.partial(loop, losses=loop_binary, weight=np.broadcast_to(each, (5, 3)), unknown=unknown)
    assert worst_error(binary_cross_entropy, expected, logits_of(5, 3), LABEL, weight, unknown=unknown) < EXACT


@pytest.mark.parametrize("unknown", ["ignore", "negative"])
@pytest.mark.parametrize("focal_gradient", [True, False])
@pytest.mark.parametrize(
    "gamma_positive,gamma_negative,clip", [(0.0, 4.0, 0.05), (1.0, 0.5, 0.2), (0.0, 0.0, 0.0), (2.0, 3.0, 0.0)]
)
def test_asymmetric(gamma_positive, gamma_negative, clip, focal_gradient, unknown):
    def weights(z):
        p = sigmoid(z)
        return (1 - p) ** gamma_positive, (p - clip) ** gamma_negative if p.real > clip else 0

    def losses(z):
        p = sigmoid(z)
        return -np.log(p), -np.log(1 - (p - clip)) if p.real > clip else 0

    z = logits_of(5, 3)
    still = {score: weights(score) for score in z.ravel()}

    def focal(score, frozen=False):
        factors = still[score.real] if frozen else weights(score)
        return [factor * each for factor, each in zip(factors, losses(score), strict=True)]

    expected = functools.partial(loop, losses=focal, weight=np.ones((5, 3)), unknown=unknown)
    frozen = functools.partial(
        loop, losses=functools.partial(focal, frozen=True), weight=np.ones((5, 3)), unknown=unknown
    )
    keys = {"gamma_positive": gamma_positive, "gamma_negative": gamma_negative, "clip": clip, "unknown": unknown}
    keys |= {"focal_gradient": focal_gradient, "gradient_of": None if focal_gradient else frozen}
    assert worst_error(asymmetric, expected, z, LABEL, **keys) < EXACT


def test_without_focus_and_clip_it_is_binary_cross_entropy():
    z = logits_of(5, 3)
    with jax.enable_x64(True):
        found = asymmetric(
            z, LABEL, gamma_positive=0.0, gamma_negative=0.0, clip=0.0, focal_gradient=True, unknown="ignore"
        )
        expected = binary_cross_entropy(z, LABEL, unknown="ignore")
    np.testing.assert_allclose(found, expected, rtol=EXACT)


@pytest.mark.parametrize("gamma_negative", [0.0, 0.5, 4.0])
def test_a_negative_below_the_clip_has_no_gradient_at_all(gamma_negative):
    z = jnp.array([[-3.0, -2.95, -2.9, -100]])  # sigmoid(-2.944) = 0.05
    keys = {"gamma_positive": 0.0, "gamma_negative": gamma_negative, "clip": 0.05, "focal_gradient": True}
    value, gradient = jax.jit(
        jax.value_and_grad(lambda z: asymmetric(z, np.zeros((1, 4), np.int8), unknown="ignore", **keys))
    )(z)
    np.testing.assert_array_equal(gradient[0] == 0, [True, True, False, True])
    assert value > 0


@pytest.mark.parametrize("unknown", ["ignore", "negative"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_nothing_known_and_sure_logits(unknown, gamma, clip):
    keys = {"gamma_positive": gamma, "gamma_negative": gamma, "clip": clip, "focal_gradient": True, "unknown": unknown}
    for objective in (
        functools.partial(asymmetric, **keys),
        functools.partial(binary_cross_entropy, unknown=unknown),
    ):
        call = jax.jit(jax.value_and_grad(objective))
        z = jnp.array([[200.0, -200, 0], [90, -90, 1]], jnp.float32)
        value, gradient = call(z, np.full((2, 3), -1, np.int8))
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)
        for label in (np.zeros((2, 3), np.int8), np.ones((2, 3), np.int8)):
            value, gradient = call(z, label)
            assert np.isfinite(value) and np.isfinite(gradient).all()


def test_bfloat16_is_computed_in_float32():
    z = jnp.asarray(logits_of(5, 3), jnp.bfloat16)
    call = jax.jit(
        jax.value_and_grad(lambda z: asymmetric(z, LABEL, focal_gradient=True, unknown="ignore", **PUBLISHED))
    )
    value, gradient = call(z)
    assert value.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, call(z.astype(jnp.float32))[0], rtol=1e-6)


def test_arguments_are_checked():
    z = np.zeros((5, 3), np.float32)
    with pytest.raises(ValueError, match=r"logits must be \[\.\.\., C\] and label \[\.\.\., C\], got \(5, 3\), \(5,\)"):
        binary_cross_entropy(z, LABEL[:, 0], unknown="ignore")
    with pytest.raises(ValueError, match="unknown must be one of ignore, negative, got 'positive'"):
        binary_cross_entropy(z, LABEL, unknown="positive")
    with pytest.raises(ValueError, match=r"weight must have the leading dimensions of \(5, 3\), got \(3,\)"):
        binary_cross_entropy(z, LABEL, np.ones(3, np.float32), unknown="ignore")


def best(objective):
    """The probability that is best for a class that 3 of 10 rows with one and the same input have."""
    label = (np.arange(10) < 3).astype(np.int8)[:, None]
    with jax.enable_x64(True):
        probabilities = jnp.linspace(0.001, 0.999, 9981)
        z = jnp.log(probabilities) - jnp.log1p(-probabilities)
        losses = jax.vmap(lambda z: objective(jnp.full((10, 1), z), label))(z)
        return float(probabilities[jnp.argmin(losses)])


def test_what_asl_is_for():
    """P144: a label that 30 % of like rows have. Cross-entropy's best probability is 0.3, so that none is predicted: F1
    is 0. ASL's is above a half: all are, with recall 1 and F1 = 0.46."""
    binary = best(functools.partial(binary_cross_entropy, unknown="ignore"))
    keys = {"gamma_positive": 0.0, "gamma_negative": 4.0, "focal_gradient": True, "unknown": "ignore"}
    unclipped, clipped = (best(functools.partial(asymmetric, clip=clip, **keys)) for clip in (0.0, 0.05))
    np.testing.assert_allclose([binary, unclipped, clipped], [0.3, 0.556, 0.597], atol=1e-3)

    def f1(probability):
        predicted = 10 if probability >= 0.5 else 0
        return 2 * min(predicted, 3) / (predicted + 3)

    assert f1(binary) == 0 and f1(unclipped) == f1(clipped) == 6 / 13
