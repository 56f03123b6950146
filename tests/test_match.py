"""`labelfx.derived.match`: permutations are found that are there, and what they are for."""

import itertools

import jax
import numpy as np
import pytest
from test_symmetries import NETS, cycles, network
from toys import assert_beats, trained, with_head

from labelfx.data.sources import digits
from labelfx.derived import logits, recalibrate
from labelfx.derived.match import alignment, barrier, between, cross_entropy, weight_matching
from labelfx.models import Model, backbones, heads
from labelfx.models.classifiers import linear
from labelfx.models.symmetries import Axis, groups, leaf, permute


def inner_product(a, b):
    pairs = zip(jax.tree.leaves(a["params"]), jax.tree.leaves(b["params"]), strict=True)
    return sum(np.vdot(x.astype(np.float64), y.astype(np.float64)) for x, y in pairs)


@pytest.mark.parametrize("name", ["mlp", "conv3", "resnet18"])
def test_a_permutation_is_recovered(name):
    config, shape = NETS[name]
    _, a, _ = network(config, shape, linear(3))
    found = groups(config)
    b = permute(found, a, cycles(found, a))
    order = weight_matching(found, a, b, np.random.default_rng(0))
    jax.tree.map(np.testing.assert_array_equal, permute(found, b, order), a)
    for axes, units in zip(found.values(), order.values(), strict=True):
        assert sorted(units) == list(range(leaf(a, axes[0].path).shape[-1]))


def test_no_permutation_of_one_group_is_better():
    """By all the permutations of four and of three units, from the result of two networks that have none in common."""
    config = dict(name="mlp", hidden=(4, 3), dtype="float32")
    found = groups(config)
    for seed in range(3):
        rng, (_, like, _) = np.random.default_rng(seed), network(config, (2, 2, 2, 1), linear(3))
        a, b = (jax.tree.map(lambda x, rng=rng: rng.normal(size=x.shape), like) for _ in range(2))
        order = weight_matching(found, a, b, rng)
        best, worse = inner_product(a, permute(found, b, order)), []
        for name, units in order.items():
            for other in itertools.permutations(range(len(units))):
                worse.append(inner_product(a, permute(found, b, order | {name: units[list(other)]})))
        assert best > inner_product(a, b) and best == pytest.approx(max(worse), rel=1e-12)


def test_barrier():
    assert barrier(np.array([1.0, 2.0, 5.0, 4.0])) == 2.0  # the line between the ends is 1, 2, 3, 4
    assert barrier(np.array([3.0, 1.0, 1.0])) == 0.0


def test_alignment_by_loops():
    """In float64, of two convolutions; permutations turn singular vectors and leave the values."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 3, 2, 5))
    for gamma in (0.0, 0.3, 0.8):
        (u, s, v), (x, t, y) = (np.linalg.svd(kernel.reshape(18, 5), full_matrices=False) for kernel in (a, b))
        left, right = ([i for i in range(5) if values[i] > gamma * max(values)] for values in (s, t))
        total = 0.0
        for i in left:
            for j in right:
                total += sum(u[k, i] * x[k, j] for k in range(18)) * sum(v[i, k] * y[j, k] for k in range(5))
        assert alignment(a, b, gamma) == pytest.approx(total / min(len(left), len(right)), rel=1e-12, abs=1e-14)
        assert alignment(a, a, gamma) == pytest.approx(1, rel=1e-12) and abs(alignment(a, b, gamma)) <= 1
    turned = a[..., ::-1]
    values = [np.linalg.svd(kernel.reshape(18, 5), compute_uv=False) for kernel in (a, turned)]
    np.testing.assert_allclose(*values, rtol=1e-12)
    assert alignment(a, turned, 0.3) < 0.9


def test_cross_entropy_leaves_out_unknown_labels():
    net = with_head(backbones.mlp(hidden=(), dtype="float32"), 3)
    rows = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1), np.uint8)
    variables = net.init(jax.random.key(0), rows[:1] / np.float32(255))
    labels = np.array([0, -1, 2, 1, -1], np.int32)
    z = logits(net, variables, rows).astype(np.float64)
    expected = np.mean([-np.log(np.exp(z[i, labels[i]]) / np.exp(z[i]).sum()) for i in (0, 2, 3)])
    assert cross_entropy(net, variables, rows, labels) == pytest.approx(expected, rel=1e-12)


def two(net, seed):
    """Networks of two seeds, which know 400 digits by heart; the digits, and those of the test."""
    data = digits()
    rows, labels = data.train.inputs[:400], data.train.labels[:400]
    return *(trained(net, rows, labels, 2 * seed + i) for i in range(2)), rows, labels, *data.test[:2]


def test_networks_of_two_seeds_are_connected():
    """The line between wide networks has a barrier of loss as they came, and less than a third of it with the second in
    the order of the first. The vectors of large singular values are what the permutation aligns."""
    net, found = with_head(backbones.mlp(hidden=(512,), dtype="float32"), 10), groups(dict(name="mlp", hidden=(512,)))
    unmatched, matched = [], []
    for seed in range(3):
        a, b, rows, labels, *_ = two(net, seed)
        ordered = permute(found, b, weight_matching(found, a, b, np.random.default_rng(0)))
        for barriers, other in ((unmatched, b), (matched, ordered)):
            losses = [cross_entropy(net, between(a, other, weight), rows, labels) for weight in np.linspace(1, 0, 5)]
            barriers.append(barrier(np.array(losses)))
        head = "params/head/Dense_0/kernel"
        assert alignment(leaf(a, head), leaf(ordered, head), 0.3) > alignment(leaf(a, head), leaf(b, head), 0.3) + 0.1
    print(unmatched, matched)
    assert_beats(np.array(unmatched) / 3, matched)


def normalised():
    """Pixels, four hidden layers with BatchNorm, 64 features; and its groups of units."""
    dense = heads.projector(hidden=(128,) * 4, features=64, batch_norm=True, dtype="float32")
    layers = [*(f"backbone/Dense_{i}" for i in range(5)), "head/Dense_0"]
    found = {}
    for i, (layer, after) in enumerate(itertools.pairwise(layers)):
        paths = [f"params/{layer}/kernel"]
        if i < 4:
            paths += [f"params/backbone/BatchNorm_{i}/{name}" for name in ("scale", "bias")]
            paths += [f"batch_stats/backbone/BatchNorm_{i}/{name}" for name in ("mean", "var")]
        else:
            paths.append(f"params/{layer}/bias")
        found[f"hidden_{i}"] = (*(Axis(path, -1) for path in paths), Axis(f"params/{after}/kernel", -2))

    def apply(variables, x, **keys):
        return dense.apply(variables, x.reshape(len(x), -1), **keys)

    return with_head(Model(lambda rng, x: dense.init(rng, x.reshape(len(x), -1)), apply), 10), found


@pytest.mark.slow
def test_normalised_networks_want_new_statistics():
    """Halfway, activations vary less than their statistics say, layer after layer: without new ones a network that was
    not matched is near chance, and a matched one far from its parents; with them only the matched one is near."""
    (net, found), accuracy = normalised(), []
    for seed in range(2):
        a, b, rows, _, test_rows, test_labels = two(net, seed)
        ordered = permute(found, b, weight_matching(found, a, b, np.random.default_rng(0)))
        stale = [between(a, other, 0.5) for other in (b, ordered)]
        every = [a, *stale, *(recalibrate(net, variables, rows) for variables in stale)]
        accuracy.append([np.mean(logits(net, each, test_rows).argmax(1) == test_labels) for each in every])
    print(np.round(accuracy, 3))
    parents, stale_unmatched, stale_matched, unmatched, matched = np.transpose(accuracy)
    assert (stale_unmatched < 0.3).all() and (matched > parents - 0.12).all()
    assert (matched > np.maximum(unmatched, stale_matched) + 0.1).all()
