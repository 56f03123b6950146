"""The plan with the TPU compiler itself, on the smallest slices; all of it is skipped where there is none."""

import importlib.util
import json
import math

import pytest
from recipes import QUICK_FIRST, recipe_of, tiny
from test_plan import BATCH, CLASSES, HIDDEN, INPUTS, check_by_hand, rows_of, two_dense_layers

import labelfx
from labelfx import config as configs
from labelfx.hardware import tpu
from labelfx.loop.mesh import make_mesh

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install 'labelfx[plan]'"
)


def test_flops_and_collectives_by_hand_as_the_tpu_compiler_has_them():
    (row,) = rows_of(two_dense_layers(), "v5e:2x2")
    check_by_hand(row)
    state = 3 * 4 * (INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES)  # parameters, two moments of AdamW
    assert 1 <= row.memory["arguments"] / (state + BATCH / 4 * INPUTS) < 2  # and padding to whole tiles
    print(row.moved, 2 * state)
    assert 1 <= row.moved / (2 * state) < 1.5  # read and written; images, and activations that leave the chip


def test_the_compiler_knows_every_slice():
    tpu.take_compiler()
    for chip, shapes in tpu.SLICES.items():
        for shape in shapes:
            assert len(tpu.devices_of(f"{chip}:{shape}")) == math.prod(map(int, shape.split("x"))), (chip, shape)


@pytest.mark.parametrize("slice_, fsdp", [("v4:4x4x4", 2), ("v5e:4x4", 8), ("v5p:8x8x16", 4), ("v6e:16x16", 256)])
def test_a_mesh_over_any_slice(slice_, fsdp):
    """Whether or not one side of the slice is as long as an axis of the mesh."""
    tpu.take_compiler()
    devices = tpu.devices_of(slice_)
    mesh = make_mesh(0, fsdp, among=devices)
    assert mesh.shape == {"data": len(devices) // fsdp, "fsdp": fsdp}
    assert set(mesh.devices.flat) == set(devices)


@pytest.mark.parametrize("method", [*QUICK_FIRST, "frozen", "lora"])
def test_every_method_compiles_for_a_tpu(method, tmp_path):
    config = tiny(recipe_of(method))
    if config.get("teacher"):  # of which a plan reads the configuration
        (tmp_path / "config.json").write_text(json.dumps(configs.plain(configs.check(tiny("supervised")))))
        config["teacher"] = str(tmp_path)
    table = labelfx.plan(config, ["v5e:2x2"])
    print(table)
    assert table.splitlines()[2].split(" | ")[3] == "yes"


@pytest.mark.parametrize(
    "hidden, batch, would",
    [
        ((40_000, 40_000), 1024, "--fsdp=4."),  # 6.4 GB of parameters, 19.2 GB with AdamW's moments
        ((2**16,), 2**18, "1/2 of the batch, v5e:2x4."),  # 17 GB of activations
    ],
)
def test_what_does_not_fit_and_what_would(hidden, batch, would):
    config = two_dense_layers()
    config["model"]["hidden"], config["batch"]["labelled"] = hidden, batch
    table = labelfx.plan(config, ["v5e:2x2"], num_examples=batch)
    print(table)
    assert "**no**: at least" in table
    assert f"v5e:2x2 does not fit. Any of these would fit, as compiled: {would}" in table
