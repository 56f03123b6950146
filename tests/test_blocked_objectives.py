"""Contrastive objectives block by block and round a ring: equal to the plain form, in memory that is not quadratic."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from loops import complex_step, in_float64
from test_contrastive_objectives import assert_close, loop_hard_negative, loop_nt_xent, views

from labelfx.loop.mesh import make_mesh, split_rows
from labelfx.methods.self_supervised.contrastive import contrastive as contrastive_method
from labelfx.models import Model
from labelfx.objectives import contrastive
from labelfx.objectives.ring import _loss, ring

BATCH, DIM = 8, 5
EDGES = [  # temperature, tau_plus, beta
    (0.5, 0.1, 1.0),
    (0.005, 0.1, 6.0),  # e^(1400)
    (0.5, 0.95, 1.0),  # every anchor on the floor
    (0.5, 0.2, 0.5),  # some of them
    (0.1, 0.0, 0.0),
]
NAMES = ("temperature", "tau_plus", "beta")


def in_two_views(name):
    """An objective of (z_a, z_b, temperature, tau_plus, beta), of which it takes what it knows."""
    takes = NAMES[: 1 + ("nt_xent", "debiased", "hard_negative").index(name)]

    def objective(z_a, z_b, *settings, **more):
        given = dict(zip(NAMES, settings, strict=True))
        return getattr(contrastive, name)(z_a, z_b, **{key: given[key] for key in takes}, **more)

    return objective


def queue_objective(query, key, temperature, tau_plus, beta, **more):
    queue = jnp.concatenate([query[::-1], key[:3] + query[:3]])
    return contrastive.info_nce_queue(query, key, queue, temperature=temperature, **more)


def momentum_objective(query_a, query_b, temperature, tau_plus, beta, **more):
    keys = query_b[::-1] + query_a, query_a[::-1] - query_b
    return contrastive.moco_v3(query_a, query_b, *keys, temperature=temperature, **more)


def label_objective(z_a, z_b, temperature, tau_plus, beta, **more):
    """Three classes, the last image alone in a fourth."""
    labels = (jnp.arange(len(z_a), dtype=jnp.int32) % 3).at[-1].set(3)
    z = jnp.stack([z_a, z_b], axis=1)
    return contrastive.sup_con(z, labels, temperature=temperature, base_temperature=0.07, **more)


OBJECTIVES = {name: in_two_views(name) for name in ("nt_xent", "debiased", "hard_negative")}
OBJECTIVES |= {"info_nce_queue": queue_objective, "moco_v3": momentum_objective, "sup_con": label_objective}
SIZES_OF_BLOCKS = dict.fromkeys(OBJECTIVES, (1, 3, 4, 15, 16, 1000)) | {"moco_v3": (3,), "sup_con": (1, 5)}


@functools.cache
def compiled(name, **more):
    """Value and gradients, of the embeddings and of the temperature; the settings are traced."""
    return jax.jit(jax.value_and_grad(partial(OBJECTIVES[name], **more), argnums=(0, 1, 2)))


def flat(found):
    """Loss, gradient of z_a, ...: one list."""
    value, gradients = found
    return [value, *gradients]


def relative_error(actual, expected):
    """The worst over a tree, each array's as a share of its largest entry."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    return max(np.abs(a - e).max() / max(np.abs(e).max(), 1e-30) for a, e in pairs)


@pytest.mark.parametrize(("name", "block_size"), [(name, n) for name in OBJECTIVES for n in SIZES_OF_BLOCKS[name]])
def test_blocks_change_nothing(name, block_size):
    """Blocks of one anchor, blocks that divide the 16 anchors (8 queries) and that do not, one block."""
    z_a, z_b = views(0, BATCH, DIM, 0.5)
    for settings in EDGES:
        expected = in_float64(compiled(name), z_a, z_b, *settings)
        actual = in_float64(compiled(name, block_size=block_size), z_a, z_b, *settings)
        assert relative_error(actual, expected) < 1e-12, settings


def test_positives_of_a_mask_in_blocks():
    """Asymmetric weights, an image without positives."""
    z = np.stack(views(2, 4, DIM), axis=1)
    mask = np.array([[0.0, 0.5, 2.0, 0.0], [1.0, 0.0, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    loss = partial(contrastive.sup_con_mask, temperature=0.2, base_temperature=0.07)
    expected, actual = (
        in_float64(jax.jit(jax.value_and_grad(partial(loss, block_size=size))), z, mask) for size in (None, 3)
    )
    assert relative_error(actual, expected) < 1e-12


def test_blocks_equal_the_loop_form():
    z_a, z_b = views(3, 5, 4)
    value, gradients = in_float64(compiled("hard_negative", block_size=4), z_a, z_b, 0.2, 0.1, 1.0)
    assert_close(value, loop_hard_negative(z_a, z_b, 0.2, 0.1, 1.0).real)
    assert_close(gradients[1], complex_step(lambda z: loop_hard_negative(z_a, z, 0.2, 0.1, 1.0), z_b))
    value, gradients = in_float64(compiled("nt_xent", block_size=4), z_a, z_b, 0.2, 0.1, 1.0)
    assert_close(value, loop_nt_xent(z_a, z_b, 0.2).real)
    assert_close(gradients[0], complex_step(lambda z: loop_nt_xent(z, z_b, 0.2), z_a))


@pytest.mark.parametrize("name", ["nt_xent", "debiased", "hard_negative"])
def test_one_pair_in_blocks(name):
    z_a, z_b = views(0, 1, 3)
    value, gradients = in_float64(compiled(name, block_size=1), z_a, z_b, 0.1, 0.1, 1.0)
    assert value == 0
    assert not np.any(np.concatenate([np.ravel(gradient) for gradient in gradients]))


def test_blocks_of_bfloat16_are_computed_in_float32():
    z_a, z_b = (jnp.asarray(z, jnp.bfloat16) for z in views(1, BATCH, DIM))
    value, gradients = compiled("hard_negative", block_size=3)(z_a, z_b, 0.1, 0.1, 1.0)
    exact, _ = compiled("hard_negative", block_size=3)(*(z.astype(jnp.float32) for z in (z_a, z_b)), 0.1, 0.1, 1.0)
    assert value.dtype == jnp.float32 and value == exact
    assert gradients[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("block_size", [1, 5, 1000])
def test_diagnostics_in_blocks(block_size):
    z_a, z_b = views(1, BATCH, DIM, 0.5)
    settings = dict(temperature=0.5, tau_plus=0.2, beta=0.5)
    expected = in_float64(jax.jit(contrastive.diagnostics), z_a, z_b, **settings)
    actual = in_float64(jax.jit(partial(contrastive.diagnostics, block_size=block_size)), z_a, z_b, **settings)
    assert 0 < expected["clamped"] < 1 and expected["negative_weight"] > 0
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-12, err_msg=name)


def test_forward_mode_in_blocks():
    z_a, z_b = views(2, BATCH, DIM)
    found = []
    for block_size in (None, 3):
        loss = partial(contrastive.nt_xent, temperature=0.2, block_size=block_size)
        found.append(in_float64(jax.jit(lambda a, b, loss=loss: jax.jvp(loss, (a, b), (b, a))), z_a, z_b))
    assert relative_error(found[1], found[0]) < 1e-12


def test_blocks_by_themselves():
    """None is one block up to B = 8192; from there on the similarities of a block stay below the bound."""

    def scans(batch, block_size=None):
        z = jax.ShapeDtypeStruct((batch, 2), jnp.float32)
        return "scan[" in str(
            jax.make_jaxpr(partial(contrastive.nt_xent, temperature=0.5, block_size=block_size))(z, z)
        )

    assert not scans(8192) and scans(8193)
    assert scans(5, block_size=9) and not scans(5, block_size=10)


def temporaries(function, *shapes):
    """Bytes that the compiled value and gradient takes beside what goes in and comes out, on each device."""
    return function.lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def slope(sizes, found):
    """The exponent of growth, from the upper half of the sizes."""
    return np.diff(np.log(found))[-1] / np.diff(np.log(sizes))[-1]


SIZES = (512, 1024)


def step_of_method(z_a, z_b, *settings, **more):
    """The whole step, with its diagnostics and the share of false negatives."""
    batch = len(z_a)
    model = Model(
        lambda rng, x: {"params": {"w": jnp.ones((x.shape[-1], 4))}},
        lambda variables, x, *, train, rng=None: (x.reshape(len(x), -1) @ variables["params"]["w"], {}),
    )
    objective = partial(contrastive.hard_negative, **dict(zip(NAMES, settings, strict=True)), **more)
    method = contrastive_method(
        model, optax.sgd(0.1), augment=lambda rng, image: image, projector=model, objective=objective
    )
    label = jnp.zeros(batch, jnp.int32)
    batch = {"unlabelled": {"input": z_a}, "audit": {"unlabelled": {"label": label}}}
    key = jax.random.key(0)
    return method.step(method.init(key, batch), batch, key)


OF_MEMORY = ("nt_xent", "step")  # the others are built alike


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in OF_MEMORY else pytest.mark.slow)
        for name in (*OBJECTIVES, "diagnostics", "step")
    ],
)
def test_memory_is_linear_in_the_batch(name):
    functions = OBJECTIVES | {"step": step_of_method}
    functions["diagnostics"] = lambda z_a, z_b, *settings, **more: contrastive.diagnostics(
        z_a, z_b, **dict(zip(NAMES, settings, strict=True)), **more
    )
    found = {}
    for block_size in (None, 32):
        function = partial(functions[name], block_size=block_size)
        if name in OBJECTIVES:
            function = jax.value_and_grad(function, argnums=(0, 1))
        shapes = [jax.ShapeDtypeStruct((size, 16), jnp.float32) for size in SIZES]
        function = jax.jit(lambda a, b, function=function: function(a, b, 0.5, 0.1, 1.0))
        found[block_size] = [temporaries(function, shape, shape) for shape in shapes]
    print(name, {block: (sizes, round(slope(SIZES, sizes), 3)) for block, sizes in found.items()})
    assert slope(SIZES, found[None]) > 1.8
    assert slope(SIZES, found[32]) < 1.1
    assert found[32][-1] < found[None][-1] / 4


def test_blocks_split_over_devices():
    """In the global view: the same result, and a device does its share of every block."""
    z_a, z_b = views(4, 16, DIM)
    settings = (0.2, 0.1, 1.0)
    expected = in_float64(compiled("hard_negative"), z_a, z_b, *settings)
    on_mesh = partial(jax.device_put, device=split_rows(make_mesh(8, 2)))
    actual = in_float64(
        lambda *arrays: compiled("hard_negative", block_size=8)(*map(on_mesh, arrays), *settings), z_a, z_b
    )
    assert relative_error(actual, expected) < 1e-12
    shapes = [jax.ShapeDtypeStruct((512, 16), jnp.float32, sharding=s) for s in (None, split_rows(make_mesh(8, 2)))]
    one, eight = (temporaries(compiled("hard_negative", block_size=256), shape, shape, *settings) for shape in shapes)
    print(f"one device {one}, each of eight {eight}")
    assert eight < one / 4


@functools.cache
def compiled_ring(devices, fsdp=1, block_size=None):
    """As `compiled`."""
    mesh = make_mesh(devices, fsdp)

    def loss(z_a, z_b, *settings):
        settings = dict(zip(NAMES, settings, strict=True))
        return ring(z_a, z_b, mesh=mesh, axis=mesh.axis_names, block_size=block_size, **settings)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))


@pytest.mark.parametrize("block_size", [pytest.param(None, marks=pytest.mark.slow), 3])
def test_ring_gives_the_gradients_of_the_global_view(block_size):
    z_a, z_b = views(0, BATCH, DIM, 0.5)
    expected = [in_float64(compiled("hard_negative"), z_a, z_b, *settings) for settings in EDGES]
    for devices, fsdp in [(1, 1), (2, 1), (4, 1), (8, 1), (8, 4)]:
        actual = [in_float64(compiled_ring(devices, fsdp, block_size), z_a, z_b, *settings) for settings in EDGES]
        errors = [
            [relative_error(*pair) for pair in zip(flat(found), flat(right), strict=True)]
            for found, right in zip(actual, expected, strict=True)
        ]
        print(f"{devices} devices, fsdp {fsdp}:", *(f"{error:.1e}" for error in np.max(errors, axis=0)))
        assert np.max(errors) < 1e-12


def test_ring_without_settings_is_nt_xent():
    z_a, z_b = views(5, BATCH, DIM)
    expected = in_float64(compiled("nt_xent"), z_a, z_b, 0.2, 0.1, 1.0)
    mesh = make_mesh(4, 1)
    loss = jax.value_and_grad(partial(ring, mesh=mesh, axis="data", temperature=0.2), argnums=(0, 1))
    value, gradients = in_float64(jax.jit(loss), z_a, z_b)
    assert relative_error((value, gradients), (expected[0], expected[1][:2])) < 1e-12


@pytest.mark.parametrize("settings", EDGES)
def test_ring_at_the_edges(settings):
    value, gradients = in_float64(compiled_ring(1), *views(0, 1, 3), *settings)
    assert value == 0
    assert not any(np.any(gradient) for gradient in gradients)
    z_a, z_b = (jnp.asarray(z, jnp.bfloat16).at[2].set(0) for z in views(1, BATCH, DIM))
    value, gradients = compiled_ring(2)(z_a, z_b, *settings)
    expected, _ = compiled("hard_negative")(z_a, z_b, *settings)
    assert value.dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    assert not np.any(gradients[0][2])
    value, _ = compiled_ring(2)(z_a.at[3, 0].set(jnp.nan), z_b, *settings)
    assert np.isnan(value)


def test_ring_refuses_rows_that_the_devices_do_not_divide():
    settings = dict(mesh=make_mesh(8, 2), temperature=0.1)
    with pytest.raises(ValueError, match="z_a and z_b have 6 rows: must be a multiple of the 4 devices of data"):
        ring(jnp.ones((6, 3)), jnp.ones((6, 3)), axis="data", **settings)
    with pytest.raises(ValueError, match=r"z_a and z_b must have one shape \[B, D\]"):
        ring(jnp.ones((8, 3)), jnp.ones((16, 3)), axis="data", **settings)


def test_losses_of_each_device_are_caught():
    """Gradients of the devices' own losses: of one alone, and their mean taken inside, where it is already a sum."""
    z_a, z_b = views(6, BATCH, DIM)
    kernel = np.random.default_rng(7).normal(size=(DIM, 4))
    mesh, own, everywhere = make_mesh(8, 1), PartitionSpec("data"), PartitionSpec()
    settings = dict(temperature=0.2, tau_plus=0.1, beta=1.0)

    def whole(kernel, z_a, z_b):
        return ring(z_a @ kernel, z_b @ kernel, mesh=mesh, axis="data", **settings)

    def local(kernel, z_a, z_b):
        return _loss(z_a @ kernel, z_b @ kernel, "data", block_size=None, **settings)

    def first(kernel, z_a, z_b):
        losses = jax.shard_map(
            lambda *args: local(*args)[None], mesh=mesh, in_specs=(everywhere, own, own), out_specs=own
        )
        return losses(kernel, z_a, z_b)[0]

    def mean_inside(kernel, z_a, z_b):
        return jax.shard_map(
            lambda *args: jax.lax.pmean(jax.grad(local)(*args), "data"),
            mesh=mesh,
            in_specs=(everywhere, own, own),
            out_specs=everywhere,
        )(kernel, z_a, z_b)

    def plainly(kernel, z_a, z_b):
        return contrastive.hard_negative(z_a @ kernel, z_b @ kernel, **settings)

    expected = in_float64(jax.jit(jax.grad(plainly)), kernel, z_a, z_b)
    for right, gradient in [(True, jax.grad(whole)), (False, jax.grad(first)), (False, mean_inside)]:
        actual = in_float64(jax.jit(gradient), kernel, z_a, z_b)
        error = relative_error(actual, expected)
        length = np.linalg.norm(actual) / np.linalg.norm(expected)
        print(f"relative error {error:.1e}, {length:.3f} times the right length")
        assert error < 1e-12 if right else error > 0.1


@pytest.mark.slow
def test_memory_of_a_ring():
    """Of a device: with more of them it falls, and in blocks it is linear in the batch."""

    def found(batch, devices, block_size=None):
        shape = jax.ShapeDtypeStruct((batch, 16), jnp.float32, sharding=split_rows(make_mesh(devices, 1)))
        return temporaries(compiled_ring(devices, block_size=block_size), shape, shape, 0.5, 0.1, 1.0)

    by_devices = {devices: found(512, devices) for devices in (1, 2, 4, 8)}
    print(by_devices)
    assert all(by_devices[2 * devices] < by_devices[devices] / 1.8 for devices in (1, 2, 4))
    blocks = [found(size, 2, block_size=32) for size in SIZES]
    print(blocks)
    assert slope(SIZES, blocks) < 1.1
