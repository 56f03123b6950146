"""The plan of a run: that it compiles what runs, counts right, and says in one line what it cannot do."""

import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import json
import os
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image
from recipes import KINDS, QUICK_FIRST, recipe, recipe_of, tiny

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.hardware import blank, feeding, tpu
from labelfx.hardware import plans as plan
from labelfx.loop import dispatch

INPUTS, HIDDEN, CLASSES, BATCH = 64, 1024, 10, 1024
MLP = {"name": "mlp", "hidden": (4,), "dtype": "float32"}  # compiles fastest


@pytest.fixture
def on_cpu(monkeypatch):
    """CPU devices in place of chips, by which everything but the compiler's verdict on memory can be seen."""
    monkeypatch.setattr(tpu, "devices_of", lambda topology: jax.devices()[: 1 if "1x1" in topology else 4])
    monkeypatch.setattr(tpu, "take_compiler", lambda: None)


def two_dense_layers():
    config = tiny("supervised", model={"name": "mlp", "hidden": (HIDDEN,), "dtype": "float32"})
    config["method"]["augment"] = {"name": "identity"}
    config["batch"] = {"labelled": BATCH, "unlabelled": 0}
    return config


def rows_of(config, topology):
    checked = configs.check(config)
    tpu.take_compiler()
    return plan.compile_for(checked, blank.blank_dataset(checked, None, None, None), topology)


def check_by_hand(row):
    """FLOPs of the two layers' products, and the gradients' bytes over the interconnect."""
    forward = 2 * BATCH * INPUTS * HIDDEN + 2 * BATCH * HIDDEN * CLASSES
    backward = forward + 2 * BATCH * HIDDEN * CLASSES  # for the kernels; for what enters the second layer
    assert row.products * row.chips == forward + backward
    assert 1.0 <= row.flops / row.products < 1.1
    gradients = 4 * (INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES)
    reduced = sum(each.size for each in row.collectives if each.kind == "all-reduce")
    print(row.flops * row.chips, forward + backward, reduced, gradients)
    assert 0 <= reduced - gradients <= 32  # and the metrics
    assert {each.group for each in row.collectives} == {4}
    at_least = gradients * 2 * 3 / 4 / tpu.CHIPS["v5e"].interconnect
    assert row.times()["interconnect"] == pytest.approx(at_least, rel=1e-2)


def test_flops_and_collectives_by_hand(on_cpu):
    check_by_hand(*rows_of(two_dense_layers(), "v5e:2x2"))


def test_time_of_float32_follows_matmul_precision(on_cpu):
    (default,), (highest,) = (
        rows_of(two_dense_layers() | {"matmul_precision": precision}, "v5e:2x2") for precision in ("default", "highest")
    )
    assert highest.products == default.products
    more = 5 * default.products / tpu.CHIPS["v5e"].flops
    assert highest.times()["compute"] == pytest.approx(default.times()["compute"] + more)


@pytest.mark.parametrize("method", QUICK_FIRST)
def test_it_compiles_what_train_runs(method, on_cpu, monkeypatch, tmp_path):
    """The program is the same to the letter."""
    config = tiny(recipe_of(method), devices=4, model=MLP)
    for field in configs.TRAINED:
        if config.get(field):
            config[field] = str(tmp_path / field)
            labelfx.train(tiny("supervised", model=config["model"], steps=2), tmp_path / field)
    real, run = blank.jit_step, []

    def jit_step(*how):
        step = real(*how)

        class Recorded:
            _cache_size = step._cache_size

            def __call__(self, *arguments):
                run.append(step.lower(*arguments).as_text())
                raise KeyboardInterrupt

        return Recorded()

    monkeypatch.setattr(dispatch, "jit_step", jit_step)
    with pytest.raises(KeyboardInterrupt):
        labelfx.train(config, tmp_path / "run")
    planned = []
    monkeypatch.setattr(plan, "_compiled", lambda lowered, row: planned.append(lowered.as_text()) or row)
    rows_of(config, "v5e:2x2")
    assert planned[0] == run[0]


@pytest.mark.parametrize("kind", [*KINDS, "gcn"])
def test_rows_and_labels_of_every_kind_are_planned(kind, on_cpu, tmp_path):
    config = recipe(kind)
    if config.get("teacher"):  # of which a plan reads the configuration
        (tmp_path / "config.json").write_text(json.dumps(configs.plain(configs.check(recipe("supervised")))))
        config["teacher"] = tuple(str(tmp_path) for _ in config["teacher"])
    rows = rows_of(config, "v5e:1x1")
    assert rows[0].phases == [0]


def test_phases_of_one_step_are_compiled_once(on_cpu):
    rows = rows_of(tiny("curriculum_labeling", model=MLP), "v5e:1x1")
    assert [row.phases for row in rows] == [[0, 1, 2]]
    assert rows[0].collectives == []


@pytest.mark.parametrize(
    "path, epochs",
    [
        ("papers/simclr_imagenet", 1000),
        ("papers/moco_v2_imagenet", 200),
        ("../experiments/plans/hard_negative_imagenet", 1000),
    ],
)
def test_the_recipes_for_imagenet(path, epochs):
    """ResNet-50 has 23,508,032 parameters without its classifier, and all of ImageNet's images are seen as often."""
    config = configs.check(recipe(path))
    loop = blank.blank_loop(config, blank.blank_dataset(config, None, 1000, 1_281_167), jax.devices()[:1])
    phase = loop.build(0)
    variables = jax.eval_shape(phase.method.variables, loop.shapes(phase))
    assert sum(x.size for x in jax.tree.leaves(variables["params"]["backbone"])) == 23_508_032
    assert config.steps * config.batch["unlabelled"] / 1_281_167 == pytest.approx(epochs, rel=1e-3)


def test_shapes_are_those_of_the_data(data_root):
    found = {"digits": {}, "fashion_mnist": {"data_dir": str(data_root / "fashion_mnist")}}
    for name, keys in found.items():
        real = configs.build(configs.DATA, {"name": name, **keys})
        assert blank.SHAPES[name] == (real.train.inputs.shape[1:], len(real.class_names), len(real.train.inputs))


def test_table(on_cpu):
    lines = plan.plan(tiny("supervised", model=MLP), ["v5e:1x1", "v6e:2x2"], fsdp=1).splitlines()
    head, _, one, four = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4])
    assert head == plan.COLUMNS and len(one) == len(four) == len(head)
    assert one[:4] == ["v5e:1x1", "1", "1", "yes"] and one[head.index("collectives a chip")] == "none"
    assert four[:4] == ["v6e:2x2", "4", "1", "yes"] and "all-reduce" in four[head.index("collectives a chip")]


def test_a_row_of_what_does_not_fit():
    row = plan.Row("v5e:4x4", 16, 1, [0], 0, 0.0, needed=20.75 * tpu.GIB, usable=15.75 * tpu.GIB)
    assert row.cells()[3] == "**no**: at least 20.8 GiB of 15.8 GiB" and len(row.cells()) == len(plan.COLUMNS)
    assert not plan.fits([row])


def test_only_the_compiler_knows_what_rematerialisation_saves(on_cpu, monkeypatch):
    model = {"name": "resnet18", "stem": "cifar", "width": 4, "dtype": "float32"}
    config = configs.check(tiny("supervised", model=model))
    row = plan.Row("v5e:16x16", 256, 1, [0], 0, 0.0, needed=2.0, usable=1.0)

    def compile_for(config, dataset, topology):
        return [dataclasses.replace(row, topology=topology, memory={} if config.model["remat"] else None)]

    monkeypatch.setattr(plan, "compile_for", compile_for)
    found = plan.what_would_fit(config, blank.blank_dataset(config, None, None, None), [row])
    assert found == "Any of these would fit, as compiled: --config.model.remat=True."


def test_the_larger_count_of_flops_is_shown_and_named():
    row = plan.Row("v5e:4x4", 16, 1, [0], 0, products=2e12, memory={"arguments": 1}, flops=1e12)
    assert "32 TFLOP (products)" in row.cells() and row.times()["compute"] == 2e12 / 197e12
    row.flops = 3e12
    assert "48 TFLOP (compiler)" in row.cells() and row.times()["compute"] == 3e12 / 197e12


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
    monkeypatch.setattr(tpu, "take_compiler", tpu.take_compiler.__wrapped__)
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
        plan._compiled(Lowered(), plan.Row("v5e:2x2", 4, 1, [0], 0, 0.0))


def test_one_at_a_time(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(tpu.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_WORKER_HOSTNAMES", "TPU_ACCELERATOR_TYPE"):
        monkeypatch.setenv(name, "")  # restored afterwards
    (tmp_path / "labelfx_plan.lock").touch()
    with (tmp_path / "labelfx_plan.lock").open() as first, ThreadPoolExecutor() as pool:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = pool.submit(tpu.take_compiler.__wrapped__)
        with pytest.raises(TimeoutError):
            second.result(0.3)
        fcntl.flock(first, fcntl.LOCK_UN)
        lock = second.result(10)
    with pytest.raises(BlockingIOError), (tmp_path / "labelfx_plan.lock").open() as third:
        fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)
    assert capsys.readouterr().err.count("another plan is being made") == 1


def test_the_whole_of_own_images_is_given():
    config = configs.check(recipe("own_images"))
    with pytest.raises(ConfigError, match="--num_classes: missing"):
        blank.blank_dataset(config, None, None, None)
    dataset = blank.blank_dataset(config, None, 5, 1000)
    assert dataset.train.inputs.shape == (1000, 32, 32, 3) and len(dataset.class_names) == 5
    assert dataset.train.inputs[np.arange(7)].shape == (7, 32, 32, 3)


def test_images_a_second_that_are_wanted_and_decoded(on_cpu, tmp_path, monkeypatch):
    """Of the run's own files, where they are here: by hand from the step's time, sizes, a clock of 2 ms an image."""
    for i in range(60):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(path)
        path.write_bytes(path.read_bytes() + bytes(1000 - path.stat().st_size))  # 1 kB each
    clock = iter(1 + 0.002 * feeding.SAMPLE * np.arange(2))
    monkeypatch.setattr(feeding.time, "thread_time", lambda: next(clock))
    monkeypatch.setattr(feeding, "usable_cores", lambda: 16)
    monkeypatch.setattr(plan.Row, "times", lambda row: {"compute": 1e-3, "memory": 4e-3})
    data = {"name": f"folder:{tmp_path / 'data'}", "image_size": 8, "channels": 1, "placement": "host"}
    config = tiny("fixmatch", model=MLP, data=data, batch={"labelled": 4, "unlabelled": 16})

    found = plan.plan(config, ["v5e:2x2"], num_classes=10, num_examples=60).rpartition("\n\n")[2]
    assert found == (
        "Images are read while it trains, at most as many as the step takes in the time of what binds. v5e:2x2: 5,000 "
        "images a second, 5 MB of files. A core of this machine decodes 500 a second, measured on 48 of them with 1 kB "
        "each; its 16 cores 8,000, an estimate, if the disk gives 8 MB a second.\n"
    )

    def note(**changes):
        return feeding.note(configs.check(config | {"data": data | changes}), {"v5e:4x4": (20_000.0, 4)})

    assert "v5e:4x4: 20,000 images a second, 5,000 on each of 4 machines. What" in note(name="folder:nowhere")
    assert note(placement="device") == ""
