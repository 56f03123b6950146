"""Models: published sizes, networks as loops, normalisation by groups, rematerialisation, the contract of `Model`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from compiler import ALIKE
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from labelfx.models import Model, backbone, from_linen, stack
from labelfx.models.backbones import _ResNet, _Vit, _Wrn, conv3, mlp, resnet18, resnet50, vit, wrn28
from labelfx.models.heads import linear, projector
from labelfx.models.layers import BatchNorm


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
    model, x = from_linen(_ResNet((1, 2), bottleneck, stem, 2, 1, False, None)), images((3, 12, 12, 3))
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


GROUPED = stack(
    backbone=conv3(width=2, norm_groups=2, dtype="float32"),
    head=projector(hidden=(6,), features=3, batch_norm=True, norm_groups=2, dtype="float32"),
)


def weighted(model, weights):
    """A scalar of the outputs and what `apply` returns, for `jax.value_and_grad`."""

    def function(params, x, state):
        out, new = model.apply({"params": params, **state}, x, train=True)
        return jnp.sum(jax.tree.leaves(out)[-1] * weights), (out, new)

    return function


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 2, 3)])
def test_batch_norm_is_its_loop_over_groups_in_float64(groups, shape):
    model, x = from_linen(BatchNorm(groups)), np.asarray(images(shape), np.float64)
    variables, weights = filled(model, shape), np.random.default_rng(2).normal(size=shape)

    def loop(params, x):
        out, means, variances = [], [], []
        for rows in np.split(x, groups):
            values = rows.reshape(-1, 3)
            means.append(values.sum(0) / len(values))
            variances.append(((values - means[-1]) ** 2).sum(0) / len(values))
            out.append((rows - means[-1]) / np.sqrt(variances[-1] + 1e-5) * params["scale"] + params["bias"])
        return np.concatenate(out), np.mean(means, 0), np.mean(variances, 0)

    params, old = variables["params"], variables["batch_stats"]
    with jax.enable_x64(True):
        differentiate = jax.jit(jax.value_and_grad(weighted(model, weights), argnums=(0, 1), has_aux=True))
        (_, (out, state)), (grads, grad_x) = differentiate(params, x, {"batch_stats": old})
    expected, mean, var = loop(params, x)
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-11)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 * old["var"] + 0.1 * var, rtol=1e-11)
    step = 1e-6
    for index in [(0,) * len(shape), (5, *(size - 1 for size in shape[1:]))]:  # of different groups, if there are any
        nudge = np.zeros(shape)
        nudge[index] = step
        slope = (weights * (loop(params, x + nudge)[0] - loop(params, x - nudge)[0])).sum() / (2 * step)
        np.testing.assert_allclose(grad_x[index], slope, rtol=1e-6, atol=1e-8)
    for name in ("scale", "bias"):
        for channel in range(3):
            nudged = {sign: dict(params) for sign in (1, -1)}
            for sign, own in nudged.items():
                own[name] = params[name] + sign * step * (np.arange(3) == channel)
            slope = (weights * (loop(nudged[1], x)[0] - loop(nudged[-1], x)[0])).sum() / (2 * step)
            np.testing.assert_allclose(grads[name][channel], slope, rtol=1e-6, atol=1e-8)


def test_norm_groups_are_networks_of_their_own_with_shared_parameters():
    x = images((8, 8, 8, 1))
    variables = filled(small(), x.shape)
    state = {"batch_stats": variables["batch_stats"]}
    weights = np.random.default_rng(3).normal(size=(8, 3))
    with jax.enable_x64(True):
        x64 = np.asarray(x, np.float64)

        def results(model, rows):
            grad = jax.jit(jax.grad(weighted(model, weights[rows]), has_aux=True))
            return jax.tree.map(np.asarray, grad(variables["params"], x64[rows], state))

        grads, (outputs, new) = results(GROUPED, slice(0, 8))
        halves = [results(small(), slice(*rows)) for rows in ((0, 4), (4, 8))]
    np.testing.assert_allclose(
        outputs["head"], np.concatenate([h[1][0]["head"] for h in halves]), rtol=1e-9, atol=1e-11
    )
    for got, *parts in zip(*map(jax.tree.leaves, (grads, halves[0][0], halves[1][0])), strict=True):
        np.testing.assert_allclose(got, sum(parts), rtol=1e-8, atol=1e-10)
    for got, *parts in zip(*map(jax.tree.leaves, (new, halves[0][1][1], halves[1][1][1])), strict=True):
        np.testing.assert_allclose(got, sum(parts) / 2, rtol=1e-9, atol=1e-11)


def test_norm_groups_must_divide_the_batch_of_training_only():
    x = images((7, 8, 8, 1))
    variables = narrowed(filled(GROUPED, x.shape))
    assert signature(variables) == signature(narrowed(filled(small(), x.shape)))
    with pytest.raises(ValueError, match="norm_groups must divide the batch: 2 groups of 7 rows"):
        GROUPED.apply(variables, x, train=True)
    outputs, state = jax.jit(lambda v, x: GROUPED.apply(v, x, train=False))(variables, x)
    alone, _ = jax.jit(lambda v, x: small().apply(v, x, train=False))(variables, x)
    np.testing.assert_array_equal(outputs["head"], alone["head"])
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(variables["batch_stats"])))


@pytest.mark.parametrize("groups", [2, 8])
def test_norm_groups_are_the_same_on_a_mesh(groups):
    x, model = images((16, 8, 8, 1)), conv3(width=2, norm_groups=groups, dtype="float32")
    variables, weights = narrowed(filled(model, x.shape)), images((16, 128), 4)
    state = {"batch_stats": variables["batch_stats"]}
    differentiate = jax.jit(jax.value_and_grad(weighted(model, weights), has_aux=True))
    rows = NamedSharding(Mesh(np.array(jax.devices()), "data"), PartitionSpec("data"))
    everywhere = NamedSharding(rows.mesh, PartitionSpec())
    one = differentiate(variables["params"], x, state)
    eight = differentiate(*jax.device_put((variables["params"], x, state), (everywhere, rows, everywhere)))
    assert len(eight[0][1][0].sharding.device_set) == 8
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * np.abs(a).max())


SMALL = {
    "resnet": lambda remat: _ResNet((1, 1), True, "cifar", 4, 2, remat, None),
    "wrn": lambda remat: _Wrn(1, 1, 0.3, 1, remat, None),
    "vit": lambda remat: _Vit(3, 16, 2, 2, 0.3, remat, None),
}


@pytest.mark.parametrize("name", ["resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vit", "wrn"))])
def test_remat_keeps_the_values_and_fewer_activations(name):
    x = images((4, 8, 8, 3))
    results, kept = [], []
    for remat in (False, True):
        model = from_linen(SMALL[name](remat))
        variables = narrowed(filled(model, x.shape))
        state = {k: tree for k, tree in variables.items() if k != "params"}

        def loss(params, model=model, state=state):
            out, new = model.apply({"params": params, **state}, x, train=True, rng=jax.random.key(2))
            return jnp.square(out).sum(), (out, new)

        results.append(jax.jit(jax.grad(loss, has_aux=True), compiler_options=ALIKE)(variables["params"]))
        residuals = jax.eval_shape(
            lambda params, loss=loss: jax.vjp(loss, params, has_aux=True)[1], variables["params"]
        )
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(residuals)))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())
    assert kept[1] < 0.7 * kept[0]


def test_remat_reaches_every_block_of_the_builders():
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    for build, keywords, blocks in (
        (resnet18, dict(stem="cifar", width=2), 8),
        (resnet50, dict(stem="cifar", width=2), 16),
        (wrn28, dict(width=1, dropout=0.0), 12),
        (vit, dict(size="ti", patch=8, dropout=0.0), 12),
    ):
        model = build(**keywords, remat=True, dtype="float32")
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        jaxpr = jax.make_jaxpr(lambda v, x, model=model: model.apply(v, x, train=True))(variables, x)
        assert sum(str(equation.primitive) in ("checkpoint", "remat", "remat2") for equation in jaxpr.eqns) == blocks


def wrn_parameters(k, classes):
    """3x3 kernels, 1x1 shortcuts, scale and bias of the normalisations, and the classifier of WRN-28-k."""
    sizes = [16, 16 * k, 32 * k, 64 * k]
    total = 27 * 16 + 2 * sizes[3] + (sizes[3] + 1) * classes
    for before, after in zip(sizes, sizes[1:], strict=False):
        total += 9 * before * after + 7 * 9 * after * after + 2 * before + 7 * 2 * after
        total += before * after if before != after else 0
    return total


@pytest.mark.parametrize(("width", "parameters"), [(1, None), (2, 1_467_610), (8, None)])
def test_wrn28_has_the_size_of_fixmatchs(width, parameters):
    net = stack(backbone=wrn28(width=width, dropout=0.0, dtype="float32"), head=linear(features=10))
    assert count(net, (1, 32, 32, 3)) == wrn_parameters(width, 10)
    if parameters is not None:
        assert wrn_parameters(width, 10) == parameters and f"{parameters:,}" in wrn28.__doc__
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    outputs, _ = jax.eval_shape(lambda v, x: net.apply(v, x, train=True), variables, x)
    assert outputs["backbone"].shape == (2, 64 * width)


def test_wrn_is_its_loop_in_float64():
    x = images((3, 12, 12, 3))
    model = from_linen(_Wrn(1, 1, 0.0, 1, False, None))
    variables = filled(model, x.shape)
    out, _ = apply_float64(model, variables, x)

    def activated(y, own):
        y = normalise(y, own)[0]
        return np.where(y > 0, y, 0.1 * y)

    params = variables["params"]
    y = convolve(2 * np.asarray(x, np.float64) - 1, params["Conv_0"]["kernel"], 1, 1)
    for i, stride in enumerate((1, 2, 2)):
        own = params[f"_WrnBlock_{i}"]
        z = activated(y, own["BatchNorm_0"])
        y = z if i == 0 else convolve(y, own["shortcut"]["kernel"], stride, 0)
        z = activated(convolve(z, own["Conv_0"]["kernel"], stride, 1), own["BatchNorm_1"])
        y = y + convolve(z, own["Conv_1"]["kernel"], 1, 1)
    np.testing.assert_allclose(out, activated(y, params["BatchNorm_0"]).mean((1, 2)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "patch", "parameters"),
    [  # DeiT-Ti/16 and DeiT-S/16 (timm) without their class token and learned positions
        ("ti", 16, 5_717_416 - 192 - 197 * 192),
        ("s", 16, 22_050_664 - 384 - 197 * 384),
    ],
)
def test_vit_has_the_published_size(size, patch, parameters):
    side = 14 * patch
    net = stack(backbone=vit(size=size, patch=patch, dropout=0.0, dtype="float32"), head=linear(features=1000))
    width = {"ti": 192, "s": 384}[size]
    block = 4 * (width + 1) * width + (width + 1) * 4 * width + (4 * width + 1) * width + 4 * width
    formula = (3 * patch**2 + 1) * width + 12 * block + 2 * width + (width + 1) * 1000
    assert count(net, (1, side, side, 3)) == formula == parameters
    x = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    outputs, _ = jax.eval_shape(lambda v, x: net.apply(v, x, train=True), variables, x)
    assert outputs["backbone"].shape == (2, width) and set(variables) == {"params"}


def test_vit_is_its_loop_in_float64():
    width, patch, x = 8, 3, images((2, 6, 9, 2))
    model = from_linen(_Vit(2, width, 2, patch, 0.0, False, None))
    variables = filled(model, x.shape)
    out, _ = apply_float64(model, variables, x)
    params = variables["params"]

    def norm(y, own):
        centred = y - y.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * own["scale"] + own["bias"]

    def dense(y, own):
        return y @ own["kernel"] + own["bias"]

    def tokens(image):
        rows = []
        for i in range(2):
            for j in range(3):
                window = image[patch * i : patch * i + patch, patch * j : patch * j + patch]
                kernel = params["patches"]["kernel"].reshape(-1, width)
                angles = {axis: [at * 10000.0**-power for power in (0, 1)] for axis, at in (("x", j), ("y", i))}
                position = [f(a) for axis in "xy" for f in (np.sin, np.cos) for a in angles[axis]]
                rows.append(window.reshape(-1) @ kernel + params["patches"]["bias"] + position)
        return np.stack(rows)

    for image, features in zip(2 * np.asarray(x, np.float64) - 1, out, strict=True):
        y = tokens(image)
        for i in range(2):
            own = params[f"_VitBlock_{i}"]
            z = norm(y, own["LayerNorm_0"])
            query, key, value = (dense(z, own[name]) for name in ("query", "key", "value"))
            heads = []
            for columns in (slice(0, 4), slice(4, 8)):
                scores = query[:, columns] @ key[:, columns].T / 2
                heads.append(scipy.special.softmax(scores, 1) @ value[:, columns])
            y = y + dense(np.concatenate(heads, 1), own["out"])
            z = dense(norm(y, own["LayerNorm_1"]), own["hidden"])
            z = z * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
            y = y + dense(z, own["mlp_out"])
        np.testing.assert_allclose(features, norm(y, params["LayerNorm_0"]).mean(0), rtol=1e-9, atol=1e-11)


def test_vit_names_a_patch_that_does_not_divide_the_image():
    model = vit(size="ti", patch=5, dropout=0.0, dtype="float32")
    with pytest.raises(ValueError, match=r"^vit's patch 5 does not divide images of shape \(1, 10, 8, 3\)(\n|$)"):
        jax.eval_shape(model.init, jax.random.key(0), images((1, 10, 8, 3)))


@pytest.mark.parametrize("name", ["wrn", "vit"])
def test_dropout_is_drawn_by_rng_and_absent_in_evaluation(name):
    x, model = images((16, 8, 8, 3)), from_linen(SMALL[name](False))
    variables = narrowed(filled(model, x.shape))
    train = jax.jit(lambda v, x, rng: model.apply(v, x, train=True, rng=rng)[0])
    first, again, other = (train(variables, x, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    evaluate = jax.jit(lambda v, x, rng: model.apply(v, x, train=False, rng=rng)[0])
    np.testing.assert_array_equal(*(evaluate(variables, x, jax.random.key(seed)) for seed in (0, 1)))
    if name == "wrn":  # on the features: dropped, or scaled by 1 / 0.7
        kept = from_linen(_Wrn(1, 1, 0.0, 1, False, None))
        whole = jax.jit(lambda v, x: kept.apply(v, x, train=True)[0])(variables, x)
        dropped = np.asarray(first == 0)
        np.testing.assert_allclose(first, np.where(dropped, 0, whole / np.float32(0.7)), rtol=1e-5, atol=1e-6)
        assert abs(dropped.mean() - 0.3) < 4 * np.sqrt(0.21 / dropped.size)


@pytest.mark.parametrize("name", ["wrn", "vit"])
def test_bfloat16_wrn_and_vit(name):
    build = {"wrn": lambda d: _Wrn(1, 1, 0.0, 2, False, d), "vit": lambda d: _Vit(2, 16, 2, 2, 0.0, True, d)}[name]
    x = images((8, 8, 8, 3))
    variables = jax.jit(from_linen(build(jnp.bfloat16)).init)(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    wide, narrow = (
        jax.jit(lambda v, x, d=d: from_linen(build(d)).apply(v, x, train=True))(variables, x)
        for d in (None, jnp.bfloat16)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype("float32")}
    error = np.abs(wide[0] - narrow[0]).max() / np.abs(wide[0]).max()
    assert 1e-5 < error < 0.05
