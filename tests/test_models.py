"""Models: published sizes, a convolutional block as a loop, the contract of `Model`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from labelfx.models import Model, backbone, from_linen, stack
from labelfx.models.backbones import _ResNet, conv3, mlp, resnet18, resnet50
from labelfx.models.heads import linear, projector


def small(dtype="float32"):
    return stack(
        backbone=conv3(width=2, dtype=dtype), head=projector(hidden=(6,), features=3, batch_norm=True, dtype=dtype)
    )


def count(model: Model, shape):
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def images(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape).astype(np.float32))


def filled(model, shape):
    """float64 NumPy variables of the model with random values, positive where they are variances."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    rng = np.random.default_rng(1)
    low = {True: -1.0, False: 0.1}
    return jax.tree.map(lambda leaf: rng.uniform(low[leaf.ndim > 1], 1, leaf.shape), shapes)


def narrowed(variables):
    return jax.tree.map(jnp.float32, variables)


def apply_float64(model, variables, x, train=True):
    with jax.enable_x64(True):
        out, state = jax.jit(lambda v, x: model.apply(v, x, train=train))(variables, np.asarray(x, np.float64))
        assert {leaf.dtype for leaf in jax.tree.leaves((out, state))} == {jnp.dtype("float64")}
        return jax.tree.map(np.asarray, (out, state))


def signature(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize(
    ("build", "stem", "classes", "parameters"),
    [
        (resnet18, "imagenet", 1000, 11_689_512),  # torchvision's resnet18 and resnet50
        (resnet50, "imagenet", 1000, 25_557_032),
        (resnet18, "cifar", 10, 11_173_962),
    ],
)
def test_resnets_have_the_published_size(build, stem, classes, parameters):
    net = stack(backbone=build(stem=stem, width=64, dtype="float32"), head=linear(features=classes))
    assert count(net, (1, 64, 64, 3)) == parameters


@pytest.mark.parametrize(
    ("model", "side", "features"),
    [
        (conv3(width=2, dtype="float32"), 8, 128),
        (conv3(width=2, dtype="float32"), 28, 128),
        (resnet18(stem="cifar", width=4, dtype="float32"), 32, 32),
        (resnet50(stem="imagenet", width=4, dtype="float32"), 64, 128),
        (mlp(hidden=(7, 5), dtype="float32"), 8, 5),
        (mlp(hidden=(), dtype="float32"), 8, 64),
    ],
)
def test_feature_sizes(model, side, features):
    x = jax.ShapeDtypeStruct((2, side, side, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    out, _ = jax.eval_shape(lambda v, x: model.apply(v, x, train=True), variables, x)
    assert (out.shape, out.dtype) == ((2, features), jnp.float32)


def test_conv3_sizes_in_its_docstring():
    for width, parameters in ((32, 92_896), (48, 208_464)):
        assert count(conv3(width=width, dtype="float32"), (1, 28, 28, 1)) == parameters
        assert f"{parameters:,}" in conv3.__doc__


def convolve(x, kernel, stride, padding):
    """3x3 cross-correlation as a loop over the kernel's cells."""
    size = (x.shape[1] + 2 * padding - kernel.shape[0]) // stride + 1
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    out = 0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            window = x[:, i : i + stride * size : stride, j : j + stride * size : stride][:, :size, :size]
            out = out + window @ kernel[i, j]
    return out


def normalise(x, params, statistics=None):
    mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if statistics is None else statistics
    return (x - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"], (mean, var)


@pytest.mark.parametrize("train", [True, False])
def test_conv3_is_its_loop_in_float64(train):
    model, x = conv3(width=2, dtype="float32"), images((4, 8, 8, 1))
    variables = filled(model, x.shape)
    out, state = apply_float64(model, variables, x, train)
    y, params, running = 2 * np.asarray(x, np.float64) - 1, variables["params"], variables["batch_stats"]
    for i, stride in enumerate((2, 1, 1)):
        norm, old = f"BatchNorm_{i}", running[f"BatchNorm_{i}"]
        y = convolve(y, params[f"Conv_{i}"]["kernel"], stride, 1)
        y, (mean, var) = normalise(y, params[norm], None if train else (old["mean"], old["var"]))
        y = np.maximum(y, 0)
        new = {"mean": 0.9 * old["mean"] + 0.1 * mean, "var": 0.9 * old["var"] + 0.1 * var} if train else old
        for name in ("mean", "var"):
            np.testing.assert_allclose(state["batch_stats"][norm][name], new[name], rtol=1e-10)
    np.testing.assert_allclose(out, y.reshape(4, -1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("bottleneck", "stem"), [(False, "cifar"), (True, "imagenet")])
def test_resnet_is_its_loop_in_float64(bottleneck, stem):
    model, x = from_linen(_ResNet((1, 2), bottleneck, stem, 2, None)), images((3, 12, 12, 3))
    variables = filled(model, x.shape)
    out, _ = apply_float64(model, variables, x)

    def layer(y, params, name, norm, stride):
        kernel = params[name]["kernel"]
        return normalise(convolve(y, kernel, stride, kernel.shape[0] // 2), params[norm])[0]

    params = variables["params"]
    y = 2 * np.asarray(x, np.float64) - 1
    y = np.maximum(layer(y, params, "Conv_0", "BatchNorm_0", 1 if stem == "cifar" else 2), 0)
    if stem == "imagenet":  # 3x3 max-pool of stride 2; y >= 0, so zeros pad as well as -inf
        padded = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = np.max([padded[:, i : i + 6 : 2, j : j + 6 : 2][:, :3, :3] for i in range(3) for j in range(3)], 0)
    for index, stride in enumerate((1, 2, 1)):
        own, z = params[f"_Block_{index}"], y
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        for i, s in enumerate(strides):
            z = layer(z if i == 0 else np.maximum(z, 0), own, f"Conv_{i}", f"BatchNorm_{i}", s)
        assert ("shortcut" in own) == (stride == 2 or (bottleneck and index == 0))
        if "shortcut" in own:
            y = layer(y, own, "shortcut", "shortcut_norm", stride)
        y = np.maximum(y + z, 0)
    np.testing.assert_allclose(out, y.mean((1, 2)), rtol=1e-7, atol=1e-9)


def test_projector_is_its_loop_in_float64():
    head, x = projector(hidden=(6, 5), features=3, batch_norm=False, dtype="float32"), images((4, 7))
    variables = filled(head, x.shape)
    out, state = apply_float64(head, variables, x)
    y = np.asarray(x, np.float64)
    for i in range(3):
        layer = variables["params"][f"Dense_{i}"]
        y = y @ layer["kernel"] + layer["bias"]
        y = np.maximum(y, 0) if i < 2 else y
    np.testing.assert_allclose(out, y, rtol=1e-12)
    assert state == {}


def test_stack_chains_and_keeps_the_types_of_its_state():
    net, x = small(), images((4, 8, 8, 1))
    variables = narrowed(filled(net, x.shape))
    assert set(variables) == {"params", "batch_stats"}
    assert set(variables["params"]) == set(variables["batch_stats"]) == {"backbone", "head"}
    outputs, state = jax.jit(lambda v, x: net.apply(v, x, train=True, rng=jax.random.key(1)))(variables, x)
    alone = jax.jit(lambda v, x: conv3(width=2, dtype="float32").apply(v, x, train=True))(backbone(variables), x)
    np.testing.assert_allclose(outputs["backbone"], alone[0], rtol=1e-5, atol=1e-6)
    assert outputs["head"].shape == (4, 3)
    old = {"batch_stats": variables["batch_stats"]}
    assert signature(state) == signature(old)
    assert not any(np.all(a == b) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(old), strict=True))
    _, same = jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, x)
    assert all(np.all(a == b) for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(old), strict=True))


def test_a_part_without_state_or_parameters_is_absent():
    net, x = stack(backbone=mlp(hidden=(), dtype="float32"), head=linear(features=3)), images((2, 4, 4, 1))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    assert set(variables) == {"params"} and set(variables["params"]) == {"head"}
    outputs, state = net.apply(variables, x, train=True)
    assert state == {} and backbone(variables) == {}
    np.testing.assert_allclose(outputs["backbone"], 2 * x.reshape(2, -1) - 1)


def test_bfloat16_computes_narrow_and_stores_wide():
    x = images((8, 8, 8, 1))
    variables = narrowed(filled(small(), x.shape))
    assert signature(jax.eval_shape(small("bfloat16").init, jax.random.key(0), x)) == signature(variables)
    wide, _ = jax.jit(lambda v, x: small().apply(v, x, train=True))(variables, x)
    narrow, state = jax.jit(lambda v, x: small("bfloat16").apply(v, x, train=True))(variables, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((narrow, state))} == {jnp.dtype("float32")}
    error = np.abs(wide["head"] - narrow["head"]).max() / np.abs(wide["head"]).max()
    assert 1e-5 < error < 0.05


def test_uint8_images_are_refused():
    model, x = conv3(width=2, dtype="float32"), jnp.zeros((1, 8, 8, 1), jnp.uint8)
    with pytest.raises(TypeError, match="float images in .0, 1., got uint8"):
        model.apply(filled(model, x.shape), x, train=False)
