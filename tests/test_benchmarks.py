"""Every benchmark at a toy size: what its file holds, and that ratios are of figures of the same run. Never a speed."""

import functools
import json
import math
import statistics
import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from recipes import tiny

from experiments.benchmarks import common
from experiments.benchmarks.against_torch import SIDES, against_torch
from experiments.benchmarks.augmentation import augmentation
from experiments.benchmarks.blocked import blocked
from experiments.benchmarks.checkpoint import checkpoint
from experiments.benchmarks.devices import devices
from experiments.benchmarks.dispatch import dispatch
from experiments.benchmarks.host_pipeline import host_pipeline
from experiments.benchmarks.search import search
from experiments.benchmarks.startup import startup
from experiments.benchmarks.stored import stored
from experiments.benchmarks.trace import sources, trace
from labelfx.data import augment
from labelfx.models import backbones, heads, stack
from labelfx.objectives.contrastive import nt_xent

MLP = {"name": "mlp", "hidden": (4,), "dtype": "float32"}
CONFIG = tiny("simclr", model=MLP, method=tiny("simclr")["method"] | {"augment": {"name": "identity"}})


def check(name, workdir, content, sides, what="images/s"):
    """The file is what was returned; every figure is a number, every ratio one of two figures of the same round."""
    written = json.loads((workdir / f"{name}.json").read_text())
    assert written == json.loads(json.dumps(content))
    assert {"settings", "device", "load", "versions", "commit", "finished"} <= written.keys()
    assert written["benchmark"] == name and written["versions"]["jax"]
    rows = written["rows"]
    assert [row["side"] for row in rows] == sides
    for row in rows:
        if "rounds" not in row:
            continue  # not timed
        assert all(math.isfinite(value) and value > 0 for value in row["rounds"])
        assert row[what]["median"] == statistics.median(row["rounds"])
        if row["side"] == sides[0]:
            first = row["rounds"]
        ratios = [ours / theirs for ours, theirs in zip(row["rounds"], first, strict=True)]
        assert row["ratio"] == {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return rows


def test_rounds_are_interleaved():
    calls = []

    def side(name):
        return lambda: calls.append(name) or len(calls)

    sides = {"a": side("a"), "b": side("b")}
    assert common.interleave(sides, 2) == {"a": [3, 5], "b": [4, 6]}
    assert calls == ["a", "b"] * 3
    assert common.interleave(sides, 1, warm_up=0) == {"a": [7], "b": [8]}
    rows = common.rows({"a": [2.0, 4.0], "b": [1.0, 8.0]}, case=1)
    assert rows[1]["ratio"] == {"median": 1.25, "low": 0.5, "high": 2.0}  # round by round, not of the medians
    header, _, a, _ = common.markdown(rows).splitlines()
    assert header == "| case | side | images/s | ratio |"
    assert a == "| 1 | a | 3 (2 to 4) | 1 (1 to 1) |"


@pytest.fixture
def nothing_kept():
    """Without the persistent cache: seconds of compilation are of a compilation, and JAX has crashed a process where it
    wrote one of these programs (a segmentation fault in `put_executable_and_time`, jaxlib 0.10.2)."""
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    reset_cache()


def test_dispatch(tmp_path, nothing_kept):
    case = {"model": MLP, "batch": 8, "steps": 8, "rolled_steps": 4}
    content = dispatch(CONFIG, tmp_path, cases=(case,), steps_per_dispatch=2, repeats=2)
    sides = ["host, k = 1", "device, k = 1", "device, k = 2", "device, k = 2, rolled"]
    for row in check("dispatch", tmp_path, content, sides):
        assert row["compile s"] > 0 and row["share of matmul"] > 0


def test_augmentation(tmp_path):
    images = [((8, 8, 3), ("identity", "crop_flip"))]
    content = augmentation(tmp_path / "new", images=images, model=MLP, batch=4, steps=1, repeats=1)
    rows = check("augmentation", tmp_path / "new", content, ["identity", "crop_flip"], "views/s")
    for row in rows:
        share = 2 * row["step images/s"]["median"] / row["views/s"]["median"]
        assert row["share of the step"]["median"] == pytest.approx(share)


@pytest.mark.slow
def test_host_pipeline(tmp_path):
    content = host_pipeline(tmp_path, model=MLP, files=24, batch=4, count=2, workers=(1,), repeats=1)
    sides = ["the step takes", "gather from memory", "PNG files, threads", "PNG files, 1 processes"]
    check("host_pipeline", tmp_path, content, sides)
    assert [path.name for path in tmp_path.iterdir()] == ["host_pipeline.json"]


@pytest.mark.slow
def test_checkpoint(tmp_path):
    content = checkpoint(CONFIG, tmp_path, models=(MLP,), batch=4, steps=4, save_every=(2, 1), repeats=2)
    rows = check("checkpoint", tmp_path, content, ["never", "every 2 steps", "every 1 steps"])
    assert rows[0]["held s a save"] is None
    for row in rows:
        assert row["MB"] > 0
        assert row["side"] == "never" or row["held s a save"]["low"] > 0


@pytest.mark.slow
def test_startup(tmp_path):
    content = startup(CONFIG, tmp_path, repeats=1)
    for row in check("startup", tmp_path, content, ["cold", "warm"], "seconds"):
        parts = [row[part]["median"] for part in ("import", "data and state", "trace", "compile", "first step")]
        assert all(part >= 0 for part in parts) and sum(parts) == pytest.approx(row["seconds"]["median"])


@pytest.mark.slow
def test_devices(tmp_path):
    content = devices(CONFIG, tmp_path, counts=(1, 2), steps=8, repeats=1)
    check("devices", tmp_path, content, ["1 devices", "2 devices"])


@pytest.mark.parametrize("faiss", [False, True])
def test_search(tmp_path, monkeypatch, faiss):
    if faiss:
        pytest.importorskip("faiss")
    else:
        monkeypatch.setitem(sys.modules, "faiss", None)  # as where it is not installed
    content = search(tmp_path, rows=300, dimensions=8, queries=20, k=5, block=128, repeats=2)
    sides = ["labelfx, host", "labelfx, device", "NumPy", *["faiss"] * faiss]
    for row in check("search", tmp_path, content, sides, "queries/s"):
        assert row["recall"] == 1


def test_blocked(tmp_path):
    sizes = {"batches": (64, 128), "plain_up_to": 64, "timed_up_to": 64, "dim": 4, "block_size": 16}
    content = blocked(tmp_path, **sizes, cpu_devices=2, repeats=1)
    rows = check("blocked", tmp_path, content, ["blocked", "ring of 2", "plain", "blocked", "ring of 2"])
    assert [row["growth"] for row in rows[:3]] == [None] * 3
    assert [row["batch"] for row in rows if "rounds" in row] == [64] * 3
    for row, smaller in zip(rows[3:], rows[:2], strict=True):
        assert row["growth"] == pytest.approx(math.log2(row["MB a device"] / smaller["MB a device"]))


def test_trace(tmp_path, monkeypatch):
    small = {"model": {"name": "conv3", "width": 2, "dtype": "float32"}, "batch": 8, "shape": (8, 8, 1), "steps": 2}
    monkeypatch.setattr("experiments.benchmarks.trace.SIZES", {"cpu": small})
    content = trace(tmp_path)
    times = {row["kind"]: row["ms a step"] for row in content["rows"]}
    wall = content["settings"]["wall ms a step"] * content["settings"]["threads"]
    assert times.keys() >= {"convolution", "augmentation", "loss and its diagnostics", "optimiser", "gaps"}
    assert sum(times.values()) == pytest.approx(wall, rel=0.01)
    kinds = sources(HLO)
    assert kinds == {"a": "augmentation", "b": "convolution", "c": "copies into another layout", "d": "the rest"}


# Frames are numbered from one; a parent is the number after it, one for none.
HLO = """HloModule jit_steps
FileNames
1 "/somewhere/labelfx/train.py"
2 "/somewhere/labelfx/data/augment.py"
3 "/somewhere/flax/linen/linear.py"
4 "/somewhere/labelfx/models/backbones.py"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1}
2 {file_name_id=2 function_name_id=1 line=2}
3 {file_name_id=3 function_name_id=1 line=3}
4 {file_name_id=4 function_name_id=1 line=4}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=4 parent_frame_id=2}
4 {file_location_id=3 parent_frame_id=4}

ENTRY %main {
  %a = f32[8]{0} add(%x, %y), metadata={op_name="jit(steps)/add" stack_frame_id=2}
  %b = f32[8]{0} convolution(%x, %y), metadata={op_name="jit(steps)/jvp()/conv_general_dilated" stack_frame_id=4}
  %c = f32[8]{0} copy(%b)
  ROOT %d = f32[8]{0} multiply(%c, %c), metadata={op_name="jit(steps)/mul" stack_frame_id=1}
}
"""


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_against_torch(torch, tmp_path):
    model = {"name": "conv3", "width": 2, "dtype": "float32", "batches": (4, 8), "images": 8}
    content = against_torch(tmp_path, models=(model,), convolutions=((2, 4, 3, 5, 1),), repeats=1, sides=SIDES[:2])
    written = json.loads((tmp_path / "against_torch.json").read_text())
    steps, convolutions = written["rows"][:4], written["rows"][4:]
    assert [(row["batch"], row["side"]) for row in steps] == [(b, side) for b in (4, 8) for side in SIDES[:2]]
    best = max(row["images/s"]["median"] for row in steps if row["side"] == "labelfx")
    for ours, theirs in (steps[:2], steps[2:], convolutions):
        assert ours["ratio"]["median"] == 1
        assert theirs["ratio"]["median"] == theirs["rounds"][0] / ours["rounds"][0]
    for row in steps:
        assert row["to labelfx's best"] == row["images/s"]["median"] / best
        assert row["peak GB"] > 0 and row["share of matmul"] > 0
    assert content["rows"] == written["rows"]


@pytest.mark.parametrize("name, width", [("conv3", 2), ("resnet18", 2)])
def test_torch_has_the_same_network_and_loss(torch, name, width):
    from experiments.benchmarks import torch_simclr

    model = {"name": name, "width": width, "dtype": "float32"} | ({"stem": "cifar"} if name == "resnet18" else {})
    projector = {"hidden": (6,), "features": 5, "batch_norm": True, "dtype": "float32"}
    net = stack(
        backbone=getattr(backbones, name)(**{key: value for key, value in model.items() if key != "name"}),
        projector=heads.projector(**projector),
    )
    image = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    variables = jax.jit(net.init)(jax.random.key(1), image)
    theirs = torch_simclr.network(model, projector)
    # Biases and scales begin alike, and kernels come in the same order.
    kernels = [np.asarray(x) for x in jax.tree.leaves(variables["params"]) if x.ndim > 1]
    layers = [parameter for parameter in theirs.parameters() if parameter.ndim > 1]
    with torch.no_grad():
        theirs[-1].bias.zero_()
        for layer, kernel in zip(layers, kernels, strict=True):
            if kernel.ndim == 2 and name == "conv3" and len(kernel) == 64 * width:  # of features flattened as H, W, C
                kernel = kernel.reshape(4, 4, -1, kernel.shape[1]).transpose(2, 0, 1, 3).reshape(kernel.shape)
            layer.copy_(torch.from_numpy(np.moveaxis(kernel, (-1, -2), (0, 1)).copy()))
        z_theirs = theirs(2 * torch.from_numpy(image.transpose(0, 3, 1, 2).copy()) - 1)
    z = jax.jit(functools.partial(net.apply, train=True))(variables, image)[0]["projector"]
    np.testing.assert_allclose(z, z_theirs.numpy(), rtol=2e-3, atol=2e-4)
    loss = torch_simclr.nt_xent(z_theirs, 0.5).item()
    assert loss == pytest.approx(float(nt_xent(z[:4], z[4:], temperature=0.5)), rel=1e-4)


def test_torch_has_the_same_augmentation(torch):
    """The two draw their own random numbers: over many views of an image, every pixel's mean and spread agree."""
    from experiments.benchmarks import torch_simclr

    settings = {"min_scale": 0.2, "jitter_strength": 0.5, "grayscale": 0.2}
    image = np.random.default_rng(0).random((8, 8, 3), np.float32)
    images = np.broadcast_to(image, (4000, *image.shape))
    ours = jax.jit(augment.simclr(flip=True, blur=0.0, **settings))(jax.random.key(0), images)
    torch.manual_seed(0)
    theirs = torch_simclr.augment(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), **settings)
    theirs = theirs.permute(0, 2, 3, 1).numpy()
    for moment in (np.mean, np.std):
        np.testing.assert_allclose(moment(np.asarray(ours), 0), moment(theirs, 0), atol=0.02)


def test_stored(tmp_path):
    sizes = {"rows": 32, "width": 2, "batch": 8, "steps": 1, "views": 2, "repeats": 2}
    found = check("stored", tmp_path, stored(tmp_path, sizes), ["teacher", "stored"])
    assert found[1]["bytes a row"] > 2 * 10 * 4 and found[1]["s to write CIFAR-10's"] > 0
