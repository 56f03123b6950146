"""The plan of a run: that it compiles what runs, counts right, and says in one line what it cannot do."""

import contextlib
import importlib.metadata
import importlib.util
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from recipes import METHODS, recipe, recipe_of, tiny

import labelfx
from labelfx import config as configs
from labelfx import plan
from labelfx.config import ConfigError
from labelfx.mesh import make_mesh, on_every_device, split_rows

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install 'labelfx[plan]'"
)
INPUTS, HIDDEN, CLASSES, BATCH = 64, 1024, 10, 1024
MLP = {"name": "mlp", "hidden": (4,), "dtype": "float32"}  # compiles fastest


@pytest.fixture
def on_cpu(monkeypatch):
    """CPU devices in place of chips, by which everything but the compiler's verdict on memory can be seen."""
    monkeypatch.setattr(plan, "devices_of", lambda topology: jax.devices()[: 1 if "1x1" in topology else 4])
    monkeypatch.setattr(plan, "_compiler", contextlib.nullcontext)


def two_dense_layers():
    config = tiny("supervised", model={"name": "mlp", "hidden": (HIDDEN,), "dtype": "float32"})
    config["method"]["augment"] = {"name": "identity"}
    config["batch"] = {"labelled": BATCH, "unlabelled": 0}
    return config


def rows_of(config, topology):
    checked = configs.check(config)
    with plan._compiler():
        return plan.compile_for(checked, plan.blank_dataset(checked, None, None, None), topology)


def check_by_hand(row):
    """FLOPs of the two layers' products, and the gradients' bytes over the interconnect."""
    forward = 2 * BATCH * INPUTS * HIDDEN + 2 * BATCH * HIDDEN * CLASSES
    backward = forward + 2 * BATCH * HIDDEN * CLASSES  # for the kernels; for what enters the second layer
    assert 1.0 <= row.flops * row.chips / (forward + backward) < 1.1
    gradients = 4 * (INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES)
    reduced = sum(each.size for each in row.collectives if each.kind == "all-reduce")
    print(row.flops * row.chips, forward + backward, reduced, gradients)
    assert 0 <= reduced - gradients <= 32  # and the metrics
    assert {each.group for each in row.collectives} == {4}
    at_least = gradients * 2 * 3 / 4 / plan.CHIPS["v5e"].interconnect
    assert row.times()["interconnect"] == pytest.approx(at_least, rel=1e-2)


def test_flops_and_collectives_by_hand(on_cpu):
    check_by_hand(*rows_of(two_dense_layers(), "v5e:2x2"))


@needs_compiler
def test_flops_and_collectives_by_hand_as_the_tpu_compiler_has_them():
    (row,) = rows_of(two_dense_layers(), "v5e:2x2")
    check_by_hand(row)
    state = 3 * 4 * (INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES)  # parameters, two moments of AdamW
    assert 1 <= row.memory["arguments"] / (state + BATCH / 4 * INPUTS) < 2  # and padding to whole tiles


@needs_compiler
@pytest.mark.parametrize("slice_, fsdp", [("v4:4x4x4", 2), ("v5e:4x4", 8), ("v5p:8x8x16", 4), ("v6e:16x16", 256)])
def test_a_mesh_over_any_slice(slice_, fsdp):
    """Whether or not one side of the slice is as long as an axis of the mesh."""
    with plan._compiler():
        devices = plan.devices_of(slice_)
        mesh = make_mesh(0, fsdp, among=devices)
    assert mesh.shape == {"data": len(devices) // fsdp, "fsdp": fsdp}
    assert set(mesh.devices.flat) == set(devices)


@needs_compiler
@pytest.mark.parametrize("method", METHODS)
def test_every_method_compiles_for_a_tpu(method):
    table = plan.plan(tiny(recipe_of(method)), ["v5e:2x2"])
    print(table)
    assert table.splitlines()[2].split(" | ")[3] == "yes"


@needs_compiler
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
    table = plan.plan(config, ["v5e:2x2"], num_examples=batch)
    print(table)
    assert "**no**: needs" in table
    assert f"v5e:2x2 does not fit. Any of these would fit, as compiled: {would}" in table


@pytest.mark.parametrize("method", METHODS)
def test_it_compiles_what_train_runs(method, on_cpu, monkeypatch, tmp_path):
    """The program is the same to the letter."""
    config = tiny(recipe_of(method), devices=4, model=MLP)
    if config.get("backbone"):
        config["backbone"] = str(tmp_path / "pretrained")
        labelfx.train(tiny("supervised", model=config["model"], steps=2), tmp_path / "pretrained")
    real, run = plan.jit_step, []

    def jit_step(*how):
        step = real(*how)

        class Recorded:
            _cache_size = step._cache_size

            def __call__(self, *arguments):
                run.append(step.lower(*arguments).as_text())
                raise KeyboardInterrupt

        return Recorded()

    monkeypatch.setattr(labelfx.train, "jit_step", jit_step)
    with pytest.raises(KeyboardInterrupt):
        labelfx.train(config, tmp_path / "run")
    planned = []
    monkeypatch.setattr(plan, "_compiled", lambda lowered, row: planned.append(lowered.as_text()) or row)
    rows_of(config, "v5e:2x2")
    assert planned[0] == run[0]


def test_phases_of_one_step_are_compiled_once(on_cpu):
    rows = rows_of(tiny("curriculum_labeling", model=MLP), "v5e:1x1")
    assert [row.phases for row in rows] == [[0, 1, 2]]
    assert rows[0].collectives == []


def test_shapes_are_those_of_the_data(data_root):
    found = {"digits": {}, "fashion_mnist": {"data_dir": str(data_root / "fashion_mnist")}}
    for name, keys in found.items():
        real = configs.build(configs.DATA, {"name": name, **keys})
        assert plan.SHAPES[name] == (real.train.images.shape[1:], len(real.class_names), len(real.train.images))


def test_bytes_of_a_small_program():
    """Compiled for eight devices: 96 float32 are summed over groups of two."""
    mesh = make_mesh(8, 2)
    summed = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x, "fsdp"),
            mesh=mesh,
            in_specs=PartitionSpec(("data", "fsdp")),
            out_specs=PartitionSpec("data"),
        )
    )
    program = summed.lower(jax.ShapeDtypeStruct((768,), jnp.float32, sharding=split_rows(mesh))).compile()
    assert plan.collectives(program.as_text(), 8) == [plan.Collective("all-reduce", 4 * 96, 2)]
    gathered = jax.jit(lambda x: x * 2, out_shardings=on_every_device(mesh))
    program = gathered.lower(jax.ShapeDtypeStruct((768,), jnp.bfloat16, sharding=split_rows(mesh))).compile()
    assert [(each.kind, each.group) for each in plan.collectives(program.as_text(), 8)] == [("all-gather", 8)]


HLO = """\
%all-reduce-scatter.3 (input: f32[512,256]) -> f32[256,256] {
  %all-reduce.2 = f32[512,256]{1,0:T(8,128)} all-reduce(%input), channel_id=3, replica_groups={{0,1},{2,3}}
}

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  ROOT %add.1 = f32[]{:T(128)} add(%a, %b)
}

ENTRY %main.10_spmd (param: f32[8]) -> f32[8] {
  %ag = (bf16[4,8]{1,0:T(8,128)(2,1)}, bf16[16,8]{1,0:T(8,128)(2,1)S(1)}) all-gather-start(%x), replica_groups=[1,4]
  %agd = bf16[16,8]{1,0} all-gather-done(%ag)
  %both = (f32[10]{0}, (s32[3]{0}, pred[8]{0})) all-reduce(%a, %b, %c), replica_groups={}, to_apply=%region_0.1
  %cp = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%y), source_target_pairs={{0,1},{1,0}}
  %rs = f32[5]{0} reduce-scatter(%z), replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}, to_apply=%region_0.1
  %f = f32[256,256]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.3, metadata={op_name="all-reduce(x)"}
  %part = f32[9]{0} all-reduce(%u), replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_1'}, to_apply=%region_0.1
  %t = f32[9]{0} all-gather(%s), replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}, dimensions={0}
  ROOT %a2a = f32[4,7]{1,0} all-to-all(%v), replica_groups={{0,1,2,3}}, dimensions={0}
}
"""


def test_bytes_of_every_kind():
    found = plan.collectives(HLO, 4)
    assert [tuple(each) for each in found] == [
        ("reduce-scatter", 4 * 512 * 256, 2),
        ("all-gather", 2 * 16 * 8, 4),
        ("all-reduce", 40 + 12 + 8, 4),
        ("collective-permute", 24, 4),
        ("reduce-scatter", 4 * 5 * 2, 2),
        ("all-reduce", 36, 2),
        ("all-gather", 36, 2),
        ("all-to-all", 4 * 4 * 7, 4),
    ]
    assert [each.sent for each in found] == [4 * 512 * 256 / 2, 192, 90, 24, 20, 36, 18, 84]


def test_table(on_cpu):
    lines = plan.plan(tiny("supervised", model=MLP), ["v5e:1x1", "v6e:2x2"], fsdp=1).splitlines()
    head, _, one, four = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4])
    assert head == plan.COLUMNS and len(one) == len(four) == len(head)
    assert one[:4] == ["v5e:1x1", "1", "1", "yes"] and one[head.index("collectives a chip")] == "none"
    assert four[:4] == ["v6e:2x2", "4", "1", "yes"] and "all-reduce" in four[head.index("collectives a chip")]


def test_a_row_of_what_does_not_fit():
    row = plan.Row("v5e:4x4", 16, 1, [0], 0, needed=20.75 * plan.GIB, usable=15.75 * plan.GIB)
    assert row.cells()[3] == "**no**: needs 20.8 GiB of 15.8 GiB" and len(row.cells()) == len(plan.COLUMNS)
    assert not plan.fits([row])


@pytest.mark.parametrize(
    "changes, topology, message",
    [
        ({}, "v5e:4x3", "--topology=v5e:4x3: no such slice; did you mean 'v5e:4x8'"),
        ({}, "v7:4x4", "--topology=v7:4x4: no such slice; did you mean"),
        ({"fsdp": 3}, "v5e:2x2", "config.fsdp = 3: must divide the 4 devices"),
        ({"batch": {"labelled": 0, "unlabelled": 18}}, "v5e:2x2", "config.batch.unlabelled = 18: must be"),
        ({"batch": {"labelled": 4, "unlabelled": 0}}, "v5e:2x2", "config.batch.unlabelled = 0: contrastive reads"),
        ({"data": {"name": "npz:FILE"}}, "v5e:2x2", "--image_shape: missing; 'npz:FILE' is not read"),
    ],
)
def test_one_line(changes, topology, message, on_cpu):
    with pytest.raises(ConfigError) as caught:
        plan.plan(tiny("simclr", **changes), [topology])
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_without_the_compiler(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'labelfx\[plan\]'"):
        plan.plan(tiny("simclr"), ["v5e:2x2"])


def test_a_compiler_of_another_version(monkeypatch):
    class Program:
        def as_text(self):
            raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

    class Lowered:
        compile = staticmethod(Program)

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    with pytest.raises(ConfigError, match=r"libtpu 0.0.1 does not go with JAX .*: pip install 'jax\[tpu\]=="):
        plan._compiled(Lowered(), plan.Row("v5e:2x2", 4, 1, [0], 0))


def test_one_at_a_time(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(plan.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE"):
        monkeypatch.setenv(name, "")  # restored afterwards
    order = []

    def second():
        with plan._compiler():
            order.append("second")

    with plan._compiler():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert capsys.readouterr().err.count("another plan is being made") == 1


def test_the_whole_of_own_images_is_given():
    config = configs.check(recipe("own_images"))
    with pytest.raises(ConfigError, match="--num_classes: missing"):
        plan.blank_dataset(config, None, None, None)
    dataset = plan.blank_dataset(config, None, 5, 1000)
    assert dataset.train.images.shape == (1000, 32, 32, 3) and len(dataset.class_names) == 5
    assert dataset.train.images[np.arange(7)].shape == (7, 32, 32, 3)
