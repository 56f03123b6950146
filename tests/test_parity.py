"""Gradient parity: every method's update under SGD in float64 is the same on any mesh.

After many steps a wrong gradient hides behind Adam, so one step of plain SGD is taken: the change of a parameter is its
gradient. The network has BatchNorm, each device has two rows, and contrastive negatives lie on other devices.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from recipes import BATTERY, ENCODER, KINDS, recipe_of, tiny

import labelfx
from labelfx import config as configs
from labelfx.data.batches import batch_at
from labelfx.loop.dispatch import complete
from labelfx.loop.mesh import make_mesh, on_every_device, split_rows, split_state
from labelfx.loop.training import Loop

MESHES = {"8 x 1": (8, 1), "4 x 2": (8, 2), "1 x 8": (8, 8)}  # data x fsdp
SGD = {
    "name": "sgd",
    "learning_rate": 1.0,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "schedule": {"name": "constant", "warmup_steps": 0},
    "clip_norm": None,
    "accumulate": 1,
}


def double(tree):
    def one(x):
        x = np.asarray(x)
        return x.astype(np.float64) / (255 if x.dtype == np.uint8 else 1) if x.dtype in (np.float32, np.uint8) else x

    return jax.tree.map(one, tree)


class Stopped(Exception):
    """The run is where the test wants it."""


def config_of(method: str, pretrained) -> dict:
    """A method's smallest run with plain SGD; `pretrained` is the run that it starts or learns from, if it does."""
    config = tiny(recipe_of(method), optimizer=SGD)
    if method not in KINDS:
        config["model"] = {"name": "conv3", "width": 4, "dtype": "float32"}
    elif "hidden" in config["model"]:  # large enough to be split
        config["model"]["hidden"] = (128, 64)
    elif "width" in config["model"]:
        config["model"]["width"] = 4
    if method == "frozen":  # features enough for a head that is split
        config["model"]["file"] = str(ENCODER.parent / "efficientnet_b0")
    for key, value in config["method"].items():
        if key.endswith("optimizer"):
            config["method"][key] = SGD | {"learning_rate": value["learning_rate"]}
    return config | {field: str(pretrained) for field in configs.TRAINED if config.get(field)}


def pretrain(folder) -> None:
    config = config_of("supervised", None)
    labelfx.train(config | {"steps": 2}, folder)


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    pretrain(folder)
    return folder


def first_step(config, folder):
    """(step, state, batch) of a run's first step, in float64."""
    seen = {}

    def stop(self):
        batch = complete(batch_at(self.done, **self.how(self.phase, self.table)), self.fixed)
        seen.update(step=self.phase.method.step, state=jax.device_get(self.state), batch=batch)
        raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Loop, "run", stop)
        labelfx.train(config, folder)
    return seen["step"], double(seen["state"]), double(seen["batch"])


@pytest.fixture(scope="module", params=BATTERY)
def start(request, pretrained, tmp_path_factory):
    """(step, state, batch) of a method's first step, in float64."""
    return first_step(config_of(request.param, pretrained), tmp_path_factory.mktemp(request.param))


def updated(step, state, batch, devices, fsdp):
    """The state after one step on a mesh, and how many arrays of it were split."""
    mesh = make_mesh(devices, fsdp)
    where = split_state(mesh, state)
    rows = {name: on_every_device(mesh) if name == "frozen" else split_rows(mesh) for name in batch}
    placed = jax.device_put(state, where), jax.device_put(batch, rows)
    key = jax.device_put(jax.random.key(0), on_every_device(mesh))
    after, _ = jax.jit(step, out_shardings=(where, on_every_device(mesh)))(*placed, key)
    split = sum(not sharding.is_fully_replicated for sharding in jax.tree.leaves(where))
    return jax.device_get(after), split


def relative_error(state, after, expected):
    """The largest difference between two updates, relative to the largest entry of each array's update."""
    worst = 0.0
    for before, left, right in zip(*map(jax.tree.leaves, (state, after, expected)), strict=True):
        if np.issubdtype(before.dtype, np.floating):
            size = np.abs(right - before).max()
            worst = max(worst, np.abs(left - right).max() / size if size else np.abs(left - right).max())
    return worst


@pytest.mark.parametrize("meshes", [("4 x 2",), pytest.param(("8 x 1", "1 x 8"), marks=pytest.mark.slow)])
def test_every_mesh_gives_the_same_gradient(start, meshes):
    step, state, batch = start
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # indices are int64 here
        expected, _ = updated(step, state, batch, 1, 1)
        moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True)]
        assert max(moved) > 1e-3
        for name in meshes:
            mesh = MESHES[name]
            after, split = updated(step, state, batch, *mesh)
            error = relative_error(state, after, expected)
            print(f"data x fsdp = {name}: relative error {error:.1e}, {split} arrays split")
            assert error < 1e-9
            assert (split > 0) == (mesh[1] > 1)


@pytest.mark.parametrize("method", ["consistency", "moco"])
def test_groups_of_batch_norm_are_those_of_any_mesh(method, tmp_path):
    """Streams that are shared out among the groups, keys that are shuffled between them."""
    config = config_of(method, None)
    config["model"] = config["model"] | {"norm_groups": 4}
    step, state, batch = first_step(config, tmp_path)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # indices are int64 here
        expected, _ = updated(step, state, batch, 1, 1)
        after, _ = updated(step, state, batch, *MESHES["4 x 2"])
    assert relative_error(state, after, expected) < 1e-9


@pytest.mark.slow
def test_a_loss_of_each_device_is_caught(start):
    """The field's commonest mistake: the mean of the gradients of each device's own loss."""
    step, state, batch = start
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # indices are int64 here
        expected, _ = updated(step, state, batch, 1, 1)
        mesh = make_mesh(8, 1)
        everywhere = PartitionSpec()
        rows = {name: everywhere if name == "frozen" else PartitionSpec("data") for name in batch}

        def local(state, batch, key):
            after, values = step(state, batch, key)
            return jax.tree.map(
                lambda x: jax.lax.pmean(x, "data") if jnp.issubdtype(x.dtype, jnp.floating) else x, after
            )

        mutant = jax.shard_map(
            local, mesh=mesh, in_specs=(everywhere, rows, everywhere), out_specs=everywhere, check_vma=False
        )
        error = relative_error(state, jax.device_get(jax.jit(mutant)(state, batch, jax.random.key(0))), expected)
        print(f"a loss of each device: relative error {error:.2f}")
        assert error > 0.1


def test_what_is_split():
    mesh = make_mesh(8, 4)
    shapes = {"kernel": (3, 3, 64, 128), "odd": (1023, 7), "bias": (128,), "queue": (4096, 64), "step": ()}
    where = split_state(mesh, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    assert where["kernel"].spec == PartitionSpec(None, None, None, "fsdp")
    assert where["queue"].spec == PartitionSpec("fsdp")
    assert all(where[name].is_fully_replicated for name in ("odd", "bias", "step"))
    assert make_mesh(0, 2).shape == {"data": 4, "fsdp": 2}
    with pytest.raises(labelfx.ConfigError, match="config.fsdp = 3: must divide the 8 devices"):
        make_mesh(0, 3)


def test_sgd_moves_by_the_gradient():
    """What the parity tests rest on."""
    tx = optax.sgd(1.0, 0.0, nesterov=True)
    updates, _ = tx.update(jnp.asarray([0.5]), tx.init(jnp.zeros(1)))
    assert updates == -0.5
