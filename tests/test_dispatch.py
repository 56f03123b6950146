"""Where the images lie and how many steps a dispatch holds change no result: they are knobs of speed."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiler import ALIKE
from recipes import tiny
from test_parity import SGD, double

import labelfx
from labelfx.config import ConfigError
from labelfx.data import augment
from labelfx.data.batches import batch_at
from labelfx.finished import weights
from labelfx.loop import dispatch, phases, run
from labelfx.loop.dispatch import complete, jit_step
from labelfx.loop.mesh import make_mesh, on_every_device, own_rows, place_batches, place_inputs, split_rows
from labelfx.loop.training import Loop
from labelfx.methods import Method

loop = importlib.import_module("labelfx.train")
KNOBS = {
    "device": {"data": {"name": "digits", "placement": "device"}},
    "k = 4": {"steps_per_dispatch": 4},
    "device, k = 4": {"data": {"name": "digits", "placement": "device"}, "steps_per_dispatch": 4},
}
EVENTS = {"log_every": 4, "save_every": 6, "steps": 21}  # dispatches of 4 and of 1 step alternate


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A contrastive run on the digits, just before its first step: BatchNorm, augmentation, eight devices."""
    seen = {}

    def stop(self):
        seen["loop"] = self
        raise Stopped

    config = tiny("simclr", optimizer=SGD | {"learning_rate": 0.01}, devices=0, **KNOBS["device"])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "run", stop)
        labelfx.train(config, tmp_path_factory.mktemp("begun"))
    return seen["loop"]


@pytest.fixture
def rolled(request, monkeypatch):
    """The loop of an accelerator, also here, unless the parameter says not."""
    scan = jax.lax.scan
    if getattr(request, "param", True):
        monkeypatch.setattr(jax.lax, "scan", lambda *how, unroll, **more: scan(*how, unroll=1, **more))


def stacked(begun, first, count, *, inputs):
    how = begun.how(begun.phase, begun.table)
    several = [batch_at(step, inputs=inputs, **how) for step in range(first, first + count)]
    return place_batches(begun.mesh, jax.tree.map(lambda *each: np.stack(each), *several))


def see(begun, count, *, inputs):
    """Every batch of 50 steps as the step sees it, and its augmented pixels, in dispatches of `count`."""
    weak = augment.small_grey(min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.25)

    def step(state, batch, rng):
        # The state gathers what the steps saw, each at its place.
        place, seen = state
        found = {"batch": batch, "pixels": weak(rng, batch["unlabelled"]["input"])}
        seen = jax.tree.map(lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, place, 0), seen, found)
        return (place + 1, seen), {"loss": jnp.float32(0)}

    fixed = {} if inputs else {"inputs": begun.fixed["inputs"]}
    batch = jax.tree.map(lambda x: x[0], stacked(begun, 0, 1, inputs=inputs))
    shapes = jax.eval_shape(lambda batch: complete(batch, fixed), batch)
    shapes = {"batch": shapes, "pixels": jax.ShapeDtypeStruct(shapes["unlabelled"]["input"].shape, np.float32)}
    state = (jnp.int32(0), jax.tree.map(lambda x: jnp.zeros((50, *x.shape), x.dtype), shapes))
    state = jax.device_put(state, on_every_device(begun.mesh))
    run, bad = jit_step(Method(None, step, None), begun.mesh, state, count), {"loss": jnp.int32(2**31 - 1)}
    for first in range(0, 50, count):
        batches = stacked(begun, first, count, inputs=inputs)
        state, bad, _ = run(state, bad, fixed, batches, jax.random.key(3), np.int32(first))
    return jax.device_get(state[1])


def jit_alike(function, jit=jax.jit, **how):
    """`jax.jit`, whose programs round the same where they say the same in other words; what has no shardings of its own
    is a part of one and takes its options."""
    return jit(function, **({"compiler_options": ALIKE} if how else {}), **how)


def test_batches_and_pixels_are_the_same_to_the_bit(begun, rolled, monkeypatch):
    # Without fusion emitters some CPUs round the pixels of rolled steps otherwise than those of a single one.
    monkeypatch.setattr(jax, "jit", jit_alike)
    expected = see(begun, 1, inputs=True)
    how = begun.how(begun.phase, begun.table)
    for step in (0, 17, 49):  # the step's batches are those of `batch_at`
        image = batch_at(step, **how)["unlabelled"]["input"]
        np.testing.assert_array_equal(expected["batch"]["unlabelled"]["input"][step], image)
    assert len({pixels.tobytes() for pixels in expected["pixels"]}) == 50
    for count, inputs in ((1, False), (50, True), (50, False)):
        found = see(begun, count, inputs=inputs)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "count, rolled", [(50, True), pytest.param(4, False, marks=pytest.mark.slow)], indirect=["rolled"]
)
def test_parameters_after_100_double_steps(begun, count, rolled):
    """Rolled is what an accelerator runs, unrolled what a CPU does. In double precision from the pixels on: in float32
    the compiler rounds u / 255 * 2 - 1 once or twice, as it likes."""

    def exact(pixels):
        return np.asarray(pixels, np.float64) / 255

    def run(count, inputs):
        with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            state, bad = double(jax.device_get(begun.state)), {name: np.int32(2**31 - 1) for name in names}
            steps = jit_step(begun.phase.method, begun.mesh, state, count)
            pixels = begun.fixed["inputs"]
            fixed = {} if inputs else {"inputs": jax.device_put(exact(pixels), pixels.sharding)}
            for first in range(0, 100, count):
                batches = stacked(begun, first, count, inputs=inputs)
                if inputs:
                    batches["unlabelled"]["input"] = exact(batches["unlabelled"]["input"])
                state, bad, _ = steps(state, bad, fixed, batches, jax.random.key(3), np.int32(first))
            return jax.device_get(state)

    names = begun.metrics(begun.phase, begun.state, begun.table)
    reference = run(1, True)
    for inputs in (True, False):
        found = run(count, inputs)
        errors = [np.abs(a - b).max(initial=0) for a, b in zip(*map(jax.tree.leaves, (found, reference)), strict=True)]
        print(f"k = {count}, images {'in the batch' if inputs else 'on the devices'}: {max(errors):.1e}")
        assert max(errors) < 1e-10
    moved = zip(*map(jax.tree.leaves, (reference, begun.state)), strict=True)
    assert max(np.abs(a - b).max(initial=0) for a, b in moved) > 1e-2


@pytest.fixture(scope="module")
def alike():
    """Every step is compiled so that the same in other words rounds the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", jit_alike)
        yield


@pytest.fixture(scope="module")
def plain(alike, tmp_path_factory):
    """The weights of an uninterrupted run with neither knob."""
    folder = tmp_path_factory.mktemp("plain")
    labelfx.train(tiny("moco", **EVENTS), folder)
    return weights.load(folder / "weights/0.safetensors")


@pytest.mark.parametrize("knob", KNOBS)
def test_a_run_resumes_across(knob, plain, tmp_path, monkeypatch):
    """Begun without the knob, stopped, taken up with it, stopped, and ended without."""
    real, stops, counts = Loop.log, [8, 16], []
    real_jit_step = dispatch.jit_step

    def counted(*how):
        counts.append(how[-1])
        return real_jit_step(*how)

    def log(self, values):
        real(self, values)
        if stops and self.done >= stops[0]:
            stops.pop(0)
            raise Stopped

    monkeypatch.setattr(dispatch, "jit_step", counted)
    monkeypatch.setattr(Loop, "log", log)
    for changes in ({}, KNOBS[knob]):
        with pytest.raises(Stopped):
            labelfx.train(tiny("moco", **EVENTS, **changes), tmp_path)
    results = labelfx.train(tiny("moco", **EVENTS), tmp_path)
    assert results["training"]["steps"] == 21 and results["training"]["compilations"] == 1
    assert (4 in counts) == ("k" in knob)
    found = weights.load(tmp_path / "weights/0.safetensors")
    close = np.testing.assert_allclose if "k" in knob else np.testing.assert_array_equal
    jax.tree.map(lambda a, b: close(a, b, **({"rtol": 1e-3, "atol": 1e-4} if "k" in knob else {})), found, plain)


def test_dispatches_stop_where_the_loop_has_something_to_do(begun):
    begun.config = labelfx.config.check(
        tiny("simclr", log_every=10, save_every=25, eval_every=0, steps_per_dispatch=4, steps=47)
    )
    found, done = [], 0
    how = begun.how(begun.phase, begun.table)
    for count, batch in dispatch.dispatches(begun.config, begun.mesh, how, 0, 47):
        found.append(count)
        assert batch["unlabelled"]["index"].shape == (count, 16)
        expected = batch_at(done + count - 1, **begun.how(begun.phase, begun.table))["unlabelled"]["index"]
        np.testing.assert_array_equal(batch["unlabelled"]["index"][-1], expected)
        done += count
    assert done == 47
    assert found == [4, 4, 1, 1, 4, 4, 1, 1, 4, 1, 4, 1, 4, 4, 1, 1, 4, 1, 1, 1]


def test_images_are_shared_out():
    mesh, images = make_mesh(8, 2), np.arange(13, dtype=np.uint8).reshape(13, 1, 1, 1)
    placed = place_inputs(mesh, images)
    assert placed.shape == (16, 1, 1, 1) and placed.sharding == split_rows(mesh)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 1, 1, 1)}
    np.testing.assert_array_equal(placed[:13], images)
    np.testing.assert_array_equal(own_rows(mesh, 16), np.arange(16))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"steps_per_dispatch": 5}, "config.steps_per_dispatch = 5: must be at most config.log_every = 2"),
        ({"data": {"name": "digits", "placement": "gpu"}}, "config.data.placement = 'gpu': must be one of"),
        ({"data": {"name": "digits", "placment": "host"}}, "config.data.placment: unknown key of digits; did you mean"),
    ],
)
def test_one_line(changes, message, tmp_path):
    with pytest.raises(ConfigError) as caught:
        labelfx.train(tiny("simclr", **changes), tmp_path)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_compiled_programs_are_kept(monkeypatch, tmp_path):
    """In one place by default; where the user says, if they say."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        run.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == before["jax_compilation_cache_dir"]
        jax.config.update("jax_compilation_cache_dir", None)
        run.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "labelfx")
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_images_that_do_not_fit(monkeypatch, tmp_path):
    monkeypatch.setattr(phases, "device_memory", lambda mesh: 60_000)
    with pytest.raises(ConfigError, match="config.data.placement: the images take .* GB; must be 'host'"):
        labelfx.train(
            tiny("supervised", model={"name": "mlp", "hidden": (2,), "dtype": "float32"}, **KNOBS["device"]), tmp_path
        )
