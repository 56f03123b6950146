"""The first ten minutes on a GPU, at a toy size on a CPU: what each stage's table says, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import labelfx
from experiments import first_gpu as stages
from experiments.benchmarks import common
from experiments.first_gpu import STAGES, first_gpu
from labelfx.config import ConfigError
from labelfx.finished import weights

SETTINGS = {"tiny": True, "data_dir": None, "seconds": 1.0}


@pytest.fixture
def here(monkeypatch):
    """What has a process of its own runs in this one, whose compiled programs it shares."""
    monkeypatch.setattr(common, "in_new_process", lambda function, *arguments, **environment: function(*arguments))


def test_runs_repeat_and_resume(tmp_path):
    rows = stages.runs(tmp_path / "runs", tiny=True)
    assert [row["run"] for row in rows] == ["first", "again", "stopped and resumed"]
    assert [row["equal to the first bit for bit"] for row in rows] == ["yes"] * 3
    assert [row["largest difference"] for row in rows] == [0.0] * 3


def test_a_run_that_does_not_repeat_says_so(tmp_path, monkeypatch):
    def train(config, folder):
        found = np.array([1.0, 1.0 + 1e-7 * (folder.name == "again")], np.float32)
        weights.save(folder / "weights" / "0.safetensors", {"params": {"kernel": found}})
        return {"training": {"images_per_second": 1.0}, "metrics": {}}

    monkeypatch.setattr(labelfx, "train", train)
    monkeypatch.setattr(stages, "_stop_in_the_middle", lambda config, folder: None)
    rows = stages.runs(tmp_path / "runs", tiny=True)
    assert [row["equal to the first bit for bit"] for row in rows] == ["yes", "no", "yes"]
    assert [row["largest difference"] > 0 for row in rows] == [False, True, False]


def test_a_run_that_sigterm_does_not_stop_is_no_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(labelfx, "train", lambda config, folder: None)
    with pytest.raises(AssertionError, match="SIGTERM at step 20 did not stop the run"):
        stages._stop_in_the_middle({"steps": 40}, tmp_path)


def test_gradients_are_those_of_the_cpu_and_an_error_shows(tmp_path, monkeypatch):
    def gradient(step, given, device, precision, real=stages._gradient):
        found = real(step, given, device, precision)
        return [1.01 * x for x in found] if precision == "default" else found

    monkeypatch.setattr(stages, "_gradient", gradient)
    rows = stages.gradients(tmp_path / "gradients", tiny=True)
    assert [(row["method"], row["products"]) for row in rows] == [
        (method, products) for method in ("simclr", "fixmatch") for products in ("default", "highest")
    ]
    for row in rows:
        assert row["norm"] > 0.1
        expected = 0.01 if row["products"] == "default" else 0.0
        assert row["relative difference"] == pytest.approx(expected, abs=1e-5)
        assert row["of the worst parameter"] == pytest.approx(expected, abs=1e-5)


def test_momentum_after_the_first_step_is_the_gradient(tmp_path, monkeypatch):
    seen = []

    def gradient(step, given, device, precision, real=stages._gradient):
        found = real(step, given, device, precision)
        new, _ = step(*given)
        moved = jax.tree.map(lambda before, after: (before - after) / (0.01 * (1 + 0.9)), given[0].params, new.params)
        seen.append((found, jax.tree.leaves(moved)))
        return found

    monkeypatch.setattr(stages, "_gradient", gradient)
    monkeypatch.setattr(stages, "METHODS", ("supervised",))
    monkeypatch.setattr(stages, "_with_sgd", lambda name, real=stages._with_sgd: stages._tiny(real(name)))
    stages.gradients(tmp_path / "gradients", tiny=False)
    for found, moved in seen:
        for ours, theirs in zip(found, moved, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_gradients_without_a_cpu_are_refused(tmp_path, monkeypatch):
    def devices(backend=None):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ConfigError, match="^JAX_PLATFORMS=cuda: .* need the CPU beside the GPU; leave it unset$"):
        stages.gradients(tmp_path, tiny=True)


@pytest.mark.parametrize("name, changes", stages.SPEEDS.values(), ids=stages.SPEEDS)
def test_sides_are_recipes(name, changes):
    config = labelfx.recipe(name, changes)
    assert 50 % config["steps_per_dispatch"] == 0  # the steps of a measurement


def test_a_side_that_fails_is_a_row(here, tmp_path, monkeypatch):
    sides = {
        "bad": (stages.DEMO, {"method.queue_size": 24}),
        "good": ("papers/fixmatch_cifar10", {"model.dtype": "bfloat16"}),
    }
    monkeypatch.setattr(stages, "SPEEDS", sides)
    bad, good = stages.speed(tmp_path, tiny=True)
    assert bad == {
        "side": "bad",
        "error": "ConfigError: config.method: queue_size = 24: must be a multiple of batch.unlabelled = 16",
    }
    assert good["side"] == "good" and good["images/s"]["low"] > 0
    assert good["ms a step"] == pytest.approx(32e3 / good["images/s"]["median"])


def test_an_error_of_many_lines_is_one():
    assert stages._line(MemoryError("RESOURCE_EXHAUSTED:\n out of  memory")) == (
        "MemoryError: RESOURCE_EXHAUSTED: out of memory"
    )
    assert len(stages._line(MemoryError("x " * 500))) == 200


def test_a_stage_that_has_ended_is_shown_and_not_repeated(here, tmp_path, monkeypatch, capsys):
    first_gpu(tmp_path, ["moco_demo"], **SETTINGS)
    (row,) = json.loads((tmp_path / "moco_demo.json").read_text())["rows"]
    assert (row["steps"], row["of"], row["images"]) == (10, 19_400, "random")
    assert 0 <= row["kNN, %"] <= 100 and row["published after 19400 steps"] == 82.6
    table = capsys.readouterr().out.splitlines()[-2]
    monkeypatch.setattr(common, "in_new_process", None)
    first_gpu(tmp_path, ["moco_demo"], **SETTINGS)
    out = capsys.readouterr().out
    assert "moco_demo, which has ended before\n" in out and table in out
    with pytest.raises(ConfigError, match="moco_demo.json: of a run with .*; give another --workdir$"):
        first_gpu(tmp_path, ["moco_demo"], **SETTINGS | {"seconds": 2.0})


def test_a_demo_that_was_stopped_keeps_its_number_of_steps(here, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stages, "_speed", lambda config, count: {"images/s": {"median": 512 * 250 / 10}})
    monkeypatch.setattr(labelfx, "train", lambda config, folder: asked.append(config["steps"]) or 1 / 0)
    for rate in (1, 1000):
        with pytest.raises(ZeroDivisionError):
            stages.moco_demo(tmp_path / "demo", tiny=False, data_dir="DIR", seconds=10.0 * rate)
    assert asked == [200, 19_400]  # whole hundreds, and never more than published
    (tmp_path / "demo").mkdir()
    config = labelfx.recipe(stages.DEMO, {"steps": 300})
    monkeypatch.setattr(stages.run, "load_config", lambda folder: labelfx.config.check(config))
    (tmp_path / "demo" / "config.json").write_text("{}")
    with pytest.raises(ZeroDivisionError):
        stages.moco_demo(tmp_path / "demo", tiny=False, data_dir="DIR", seconds=10.0)
    assert asked[-1] == 300


def test_what_is_refused(here, tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "runs", (lambda folder, tiny: [], ("tiny",)))
    with pytest.raises(ConfigError, match="--stages = 'sped': no such stage; did you mean 'speed'[?] allowed: grad"):
        first_gpu(tmp_path, ["sped"], **SETTINGS)
    with pytest.raises(ConfigError, match="^--data_dir: missing; the folder of CIFAR-10"):
        first_gpu(tmp_path, STAGES, **SETTINGS | {"tiny": False})
    with pytest.raises(ConfigError, match="^JAX sees no GPU here, only a CPU; --tiny tries the stages on one$"):
        first_gpu(tmp_path, ["runs"], **SETTINGS | {"tiny": False})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_runs_every_stage(tmp_path):
    command = [sys.executable, "-m", "experiments.first_gpu", "--tiny", f"--workdir={tmp_path}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tables = {name: json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in STAGES}
    assert {name: len(rows) for name, rows in tables.items()} == {
        "runs": 3,
        "gradients": 4,
        "speed": 6,
        "moco_demo": 1,
    }
    assert not any("error" in row for row in tables["speed"])
