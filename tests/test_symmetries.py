"""Permutations of a network's units: they change its weights, and nothing of what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from labelfx.config import ConfigError
from labelfx.models import backbones, stack
from labelfx.models.classifiers import dense, linear
from labelfx.models.symmetries import groups, leaf, of_units, permute, size

NETS = {
    "mlp": (dict(name="mlp", hidden=(6, 5), dtype="float32"), (2, 8, 8, 1)),
    "vectors": (dict(name="mlp", hidden=(6,), dtype="float32"), (2, 7)),
    "conv3": (dict(name="conv3", width=2, dtype="float32"), (2, 8, 8, 1)),
    "conv3_of_other_sides": (dict(name="conv3", width=2, dtype="float32"), (2, 6, 4, 1)),
    "resnet18": (dict(name="resnet18", stem="cifar", width=4, dtype="float32"), (2, 8, 8, 3)),
    "resnet50": (dict(name="resnet50", stem="imagenet", width=2, dtype="float32"), (2, 32, 32, 3)),
    "wrn28": (dict(name="wrn28", width=2, dropout=0.0, dtype="float32"), (2, 8, 8, 3)),
    "wrn28_without_a_first_shortcut": (dict(name="wrn28", width=1, dropout=0.0, dtype="float32"), (2, 8, 8, 3)),
    "vit": (dict(name="vit", size="ti", patch=4, dropout=0.0, dtype="float32"), (2, 8, 8, 3)),
}


def network(config, shape, head):
    """A classifier whose units are all different, BatchNorm and biases too, and rows for it."""
    keywords = {key: value for key, value in config.items() if key != "name"}
    model = stack(backbone=getattr(backbones, config["name"])(**keywords), head=head)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))

    def filled(keys, like):
        name = keys[-1].key
        if name == "kernel":
            return (rng.normal(size=like.shape) / np.sqrt(np.prod(like.shape[:-1]))).astype(np.float32)
        return rng.uniform(0.5, 1.5, like.shape).astype(np.float32)

    x = rng.uniform(size=shape).astype(np.float32)
    return model, jax.tree_util.tree_map_with_path(filled, shapes), x


def logits_of(model):
    return jax.jit(lambda variables, x: model.apply(variables, x, train=False)[0]["head"])


def cycles(found, variables):
    """A permutation of each group that leaves no unit where it was."""
    rng, order = np.random.default_rng(1), {}
    for name, axes in found.items():
        cycle = rng.permutation(size(axes, variables))
        order[name] = np.empty_like(cycle)
        order[name][cycle] = np.roll(cycle, 1)
    return order


@pytest.mark.parametrize(("config", "shape"), NETS.values(), ids=NETS)
def test_a_permutation_of_every_group_changes_no_logit(config, shape):
    model, variables, x = network(config, shape, linear(3))
    logits, found = logits_of(model), groups(config)
    order = cycles(found, variables)
    permuted, expected = permute(found, variables, order), logits(variables, x)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(logits(permuted, x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    for path in {axis.path for axes in found.values() for axis in axes}:
        assert (leaf(variables, path) != leaf(permuted, path)).any(), path

    # Without one of its axes a group is no symmetry.
    name, axes = next(iter(found.items()))
    assert np.abs(logits(permute({name: axes[:-1]}, variables, {name: order[name]}), x) - expected).max() > 1e-3


def test_every_hidden_channel_of_a_resnet_is_in_a_group():
    for name in ("resnet18", "wrn28"):
        config, shape = NETS[name]
        _, variables, _ = network(config, shape, linear(3))
        axes = [axis for group in groups(config).values() for axis in group]
        assert len(set(axes)) == len(axes)
        found = {(axis.path, axis.axis % leaf(variables, axis.path).ndim) for axis in axes}
        expected = set()
        for keys, array in jax.tree_util.tree_leaves_with_path(variables):
            path = jax.tree_util.keystr(keys, simple=True, separator="/")
            expected |= {(path, axis) for axis in range(max(array.ndim - 2, 0), array.ndim)}
        pixels_and_classes = {("params/backbone/Conv_0/kernel", 2)} | {
            (path, axis) for path, axis in expected if "head" in path and (axis == 1 or path.endswith("bias"))
        }
        assert found == expected - pixels_and_classes


def test_a_head_on_the_map():
    config, shape = NETS["conv3"]
    model, variables, x = network(config | {"outputs": "map"}, shape, dense(3, size=(8, 8)))
    logits, found = logits_of(model), groups(config)
    permuted, expected = permute(found, variables, cycles(found, variables)), logits(variables, x)
    np.testing.assert_allclose(logits(permuted, x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_what_arrays_hold_of_a_unit():
    variables = {"params": {"head": {"Dense_0": {"kernel": np.arange(12.0).reshape(6, 2)}}}}
    axis = groups(NETS["conv3"][0])["hidden_2"][-1]
    np.testing.assert_array_equal(of_units(axis, variables, 3)[1], [2, 3, 8, 9])  # channel 1 of two positions
    np.testing.assert_array_equal(of_units(axis._replace(block=(2, 4)), variables, 2), [[4, 5], [6, 7]])


def test_networks_without_groups_are_refused():
    message = r"^config.model.name = 'transformer': no permutations .*; allowed: conv3, mlp, resnet18, resnet50, vit, "
    with pytest.raises(ConfigError, match=message):
        groups(dict(name="transformer"))
    with pytest.raises(ConfigError, match=r"^config.model.name = 'mlp': it has no hidden units to permute$"):
        groups(dict(name="mlp", hidden=()))
