"""The first ten minutes on a GPU: do runs repeat, are gradients right, how fast is it, what does MoCo's demo reach?

    python -m experiments.first_gpu --workdir=/tmp/labelfx/first_gpu --data_dir=CIFAR10 --seconds=300

`runs` trains the digits recipe twice and once with SIGTERM in the middle: are the weights equal bit for bit? On a GPU
XLA_FLAGS=--xla_gpu_deterministic_ops=true asks for that. `gradients` compares those of a method's first step on this
device with a CPU's in float32. `speed` has the images a second and the memory of six large recipes, on random images,
and PyTorch beside one of them where it is installed and sees a GPU. `moco_demo` trains papers/moco_cifar10_resnet18
for about --seconds. A stage prints its table and writes it to --workdir as it ends; one that has ended is not repeated.
--stages=speed takes that one alone. JAX_PLATFORMS stays unset: the CPU must be there beside the GPU.
"""

import importlib.util
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from absl import flags

import labelfx
from experiments.benchmarks import common
from experiments.benchmarks.against_torch import against_torch
from labelfx.config import ConfigError, command, nearest
from labelfx.data.batches import batch_at
from labelfx.finished import weights
from labelfx.loop import run
from labelfx.loop.dispatch import complete
from labelfx.loop.stopping import Preempted
from labelfx.loop.training import Loop

METHODS = ("simclr", "moco", "hard_negative", "fixmatch", "meta_pseudo_labels", "supervised", "distillation")
DEMO = "papers/moco_cifar10_resnet18"
PUBLISHED = 82.6  # kNN of MoCo's demo, see the recipe
# Its momentum after a first step from 0 is the gradient, without the rounding of a difference of parameters.
SGD = {
    "name": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "schedule": {"name": "constant", "warmup_steps": 0},
    "clip_norm": None,
    "accumulate": 1,
}
FAST = {"steps_per_dispatch": 10, "data.placement": "device"}
BFLOAT16 = {"model.dtype": "bfloat16"}
SIMCLR = {"model.name": "resnet18", "batch.unlabelled": 512}
SPEEDS: dict[str, tuple[str, dict[str, Any]]] = {  # side -> recipe, changes
    "MoCo, ResNet-18, bfloat16": (DEMO, {}),
    "SimCLR, ResNet-18, bfloat16": ("papers/simclr_cifar10", SIMCLR | FAST | BFLOAT16),
    "the same, images on the host, a step a dispatch": (
        "papers/simclr_cifar10",
        SIMCLR | BFLOAT16 | {"steps_per_dispatch": 1, "data.placement": "host"},
    ),
    "SimCLR, ResNet-18, float32": ("papers/simclr_cifar10", SIMCLR | FAST),
    "FixMatch, WRN-28-2, float32": ("papers/fixmatch_cifar10", FAST),
    "FixMatch, WRN-28-2, bfloat16": ("papers/fixmatch_cifar10", FAST | BFLOAT16),
}


def first_gpu(workdir: Path, stages: Sequence[str], *, tiny: bool, data_dir: str | None, seconds: float) -> None:
    """Runs the stages that have not ended yet, each in a process of its own, which gives the device back.

    Args:
      workdir: where each stage's `NAME.json` and its runs go.
      stages: names of `STAGES`.
      tiny: networks, batches and numbers of steps for a CPU; nothing measured is worth anything.
      data_dir: CIFAR-10, for `moco_demo`; only with `tiny` it trains on random images where there is none.
      seconds: how long `moco_demo` trains, about.

    Raises:
      ConfigError: there is no such stage, `data_dir` is missing, a stage in `workdir` ended with other settings, or
        there is no accelerator and `tiny` is not asked for.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(f"--stages = {stage!r}: no such stage; {nearest(stage, STAGES)}")
    if "moco_demo" in stages and not (data_dir or tiny):
        raise ConfigError("--data_dir: missing; the folder of CIFAR-10, which stage moco_demo trains on")
    settings = {"tiny": tiny, "data_dir": data_dir, "seconds": seconds}
    workdir.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        function, names = STAGES[stage]
        given = {name: settings[name] for name in names}
        done = workdir / f"{stage}.json"
        if not done.exists():
            print(f"\n{stage}", flush=True)
            begin = time.perf_counter()
            # Nothing is reserved that a stage's own processes, or PyTorch, would lack.
            common.in_new_process(_work, function, stage, workdir, given, XLA_PYTHON_CLIENT_PREALLOCATE="false")
            print(f"{stage} took {time.perf_counter() - begin:.0f} s", flush=True)
            continue
        content = json.loads(done.read_text())
        if content["settings"] != given:
            raise ConfigError(f"{done}: of a run with {content['settings']}, not {given}; give another --workdir")
        print(f"\n{stage}, which has ended before\n{common.markdown(content['rows'])}", flush=True)


def _work(function: Callable[..., list[dict[str, Any]]], stage: str, workdir: Path, settings: dict[str, Any]) -> None:
    if jax.default_backend() == "cpu" and not settings["tiny"]:
        raise ConfigError("JAX sees no GPU here, only a CPU; --tiny tries the stages on one")
    common.report(stage, workdir, settings, function(workdir / stage, **settings))


def runs(folder: Path, tiny: bool) -> list[dict[str, Any]]:
    """The digits recipe, the same again, and stopped by SIGTERM in the middle and resumed: their weights."""
    config = labelfx.recipe("hard_negative", FAST | {"steps": 3_000, "save_every": 10**6})
    if tiny:
        config = _tiny(config) | {"steps": 40, "log_every": 20, "evals": {}}
    shutil.rmtree(folder, ignore_errors=True)  # of a stage that did not end
    table: list[dict[str, Any]] = []
    for name in ("first", "again", "stopped and resumed"):
        begin = time.perf_counter()
        if name.startswith("stopped"):
            _stop_in_the_middle(config, folder / name)
        results = labelfx.train(config, folder / name)
        files = [folder / each / "weights" / "0.safetensors" for each in ("first", name)]
        first, found = (jax.tree.leaves(weights.load(file)) for file in files)
        table.append(
            {
                "run": name,
                "seconds": time.perf_counter() - begin,
                "images/s": results["training"]["images_per_second"],
                "equal to the first bit for bit": "yes" if all(map(np.array_equal, first, found)) else "no",
                "largest difference": max(float(np.max(np.abs(a - b))) for a, b in zip(first, found, strict=True)),
                "linear probe": results["metrics"].get("linear_probe", {}).get("accuracy"),
            }
        )
    return table


def _stop_in_the_middle(config: Mapping[str, Any], folder: Path) -> None:
    log, middle = Loop.log, config["steps"] // 2

    def log_and_stop(self: Loop, values: dict[str, jax.Array]) -> None:
        log(self, values)
        if self.done == middle:
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(Loop, "log", log_and_stop):
        try:
            labelfx.train(config, folder)
        except Preempted:
            return
    raise AssertionError(f"SIGTERM at step {middle} did not stop the run")


def _tiny(config: dict[str, Any]) -> dict[str, Any]:
    """The recipe with a network, an augmentation and batches that a CPU compiles and runs in seconds."""
    augment = {"name": "crop_flip", "padding": 1, "flip": False}
    names = {"augment", "weak", "strong"} & config["method"].keys()
    return config | {
        "model": {"name": "mlp", "hidden": (16,), "dtype": config["model"]["dtype"]},
        "method": config["method"] | {name: augment for name in names},
        "batch": {stream: min(size, 16) for stream, size in config["batch"].items()},
        "steps_per_dispatch": 1,
    }


def gradients(folder: Path, tiny: bool) -> list[dict[str, Any]]:
    """Of a first step from the same state and batch: this device's, at two precisions of products, to a CPU's."""
    try:
        cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    except RuntimeError:
        platforms = os.environ.get("JAX_PLATFORMS")
        raise ConfigError(f"JAX_PLATFORMS={platforms}: gradients need the CPU beside the GPU; leave it unset") from None
    shutil.rmtree(folder, ignore_errors=True)
    table = []
    for name in ("simclr", "fixmatch") if tiny else METHODS:
        config = _with_sgd(name)
        if "teacher" in config:
            config["teacher"] = str(folder / "teacher")
            labelfx.train(_with_sgd("supervised") | {"steps": 10, "evals": {}}, folder / "teacher")
        with tempfile.TemporaryDirectory() as scratch:
            loop = common.prepare(_tiny(config) if tiny else config, Path(scratch))
        batch = complete(batch_at(0, **loop.how(loop.phase, loop.table)), loop.fixed)
        step, given = jax.jit(loop.phase.method.step), (*jax.device_get((loop.state, batch)), loop.root)
        right = _gradient(step, given, cpu, "highest")
        for precision in ("default", "highest"):
            found = _gradient(step, given, device, precision)
            errors = [np.linalg.norm(a - b) for a, b in zip(found, right, strict=True)]
            norms = [np.linalg.norm(b) for b in right]
            whole = float(np.linalg.norm(norms))
            # A parameter whose gradient is 0 but for rounding, such as a bias before BatchNorm, says nothing.
            worst = max(float(e / n) for e, n in zip(errors, norms, strict=True) if n > 1e-4 * whole)
            table.append(
                {
                    "method": name,
                    "products": precision,
                    "relative difference": float(np.linalg.norm(errors)) / whole,
                    "of the worst parameter": worst,
                    "norm": whole,
                }
            )
    return table


def _with_sgd(name: str) -> dict[str, Any]:
    """A recipe on the digits, on one device, with SGD for each of its networks."""
    config = labelfx.recipe(name, {"devices": 1})
    method = config["method"]
    config["optimizer"] = SGD
    method |= {key: SGD for key in method if key.endswith("optimizer")}
    if "pseudo_labels" in method:
        method["pseudo_labels"]["threshold"] = 0.0  # an untrained network is confident of nothing
    return config


def _gradient(step: Callable[..., Any], given: Any, device: jax.Device, precision: str) -> list[np.ndarray]:
    """The gradients of every network that the step, given (state, batch, key), moves; float64."""
    with jax.default_matmul_precision(precision):
        new, _ = step(*jax.device_put(given, device))
    leaves = jax.tree_util.tree_leaves_with_path(new)
    return [np.asarray(x, np.float64) for path, x in leaves if ".trace" in jax.tree_util.keystr(path)]


def speed(folder: Path, tiny: bool) -> list[dict[str, Any]]:
    """Steps without logs and saves, each recipe in a process of its own; then a SimCLR step against PyTorch's.

    A side that fails, for want of memory perhaps, is a row with its error.
    """
    file = _random_images(folder, 5_000 if tiny else 20_480)
    table: list[dict[str, Any]] = []
    for side, (name, changes) in SPEEDS.items():
        config = labelfx.recipe(name, changes | {"devices": 1, "data.name": f"npz:{file}"})
        try:
            row = common.in_new_process(_speed, _tiny(config) if tiny else config, 1 if tiny else 50)
        except Exception as error:
            row = {"error": _line(error)}
        table.append({"side": side, **row})
        print(common.markdown(table[-1:]), flush=True)
    if not common.in_new_process(_torch_sees_a_gpu):
        print("no PyTorch that sees a GPU: not compared", flush=True)
        return table
    model = {"name": "resnet18", "stem": "cifar", "width": 64, "dtype": "bfloat16", "batches": (512,), "images": 20_000}
    try:
        against_torch(folder, models=(model,), convolutions=(), repeats=3, sides=("labelfx", "torch"))
    except Exception as error:
        table.append({"side": "against PyTorch", "error": _line(error)})
    return table


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def _speed(config: dict[str, Any], count: int) -> dict[str, Any]:
    """Of `count` steps, three times, after as many that do not count."""
    begin = time.perf_counter()
    steps = common.Steps(config)
    steps(config["steps_per_dispatch"])
    first, batch = time.perf_counter() - begin, steps.loop.phase.batch_size
    rate = common.spread(common.interleave({"": common.speed(count * batch, lambda: steps(count))}, 3)[""])
    return {
        "images/s": rate,
        "ms a step": 1e3 * batch / rate["median"],
        "first step s": first,
        "peak GB": common.peak_memory(),
    }


def _torch_sees_a_gpu() -> bool:
    if not importlib.util.find_spec("torch"):
        return False
    from experiments.benchmarks import torch_simclr  # imports torch

    return torch_simclr.peak_memory() is not None


def moco_demo(folder: Path, tiny: bool, data_dir: str | None, seconds: float) -> list[dict[str, Any]]:
    """As many of the recipe's steps as go into these seconds, the whole cosine over them; stopped, it goes on."""
    data = {"data.data_dir": data_dir} if data_dir else {"data.name": f"npz:{_random_images(folder.parent, 5_000)}"}
    config = labelfx.recipe(DEMO, data)
    del config["evals"]["linear_probe"]
    published, batch = config["steps"], config["batch"]["unlabelled"]
    if tiny:
        config = _tiny(config) | {"steps": 10, "log_every": 10}
    elif (folder / "config.json").exists():
        config["steps"] = run.load_config(folder).steps
    else:
        rate = common.in_new_process(_speed, config, 50)["images/s"]["median"]
        config["steps"] = min(published, max(100, int(seconds * rate / batch) // 100 * 100))
    results = labelfx.train(config, folder)
    training = results["training"]
    return [
        {
            "steps": training["steps"],
            "of": published,
            "images": data_dir or "random",
            "minutes": training["seconds"] / 60,
            "images/s": training["images_per_second"],
            "kNN, %": 100 * results["metrics"]["knn"]["accuracy"],
            f"published after {published} steps": PUBLISHED,
        }
    ]


def _random_images(folder: Path, count: int) -> Path:
    """A file of `count` random pictures in ten classes, 32x32 RGB, and 100 to test on; the same whenever it is made."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in (("train", count), ("test", 100)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (size, 32, 32, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(size) % 10
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "random.npz", allow_pickle=False, **arrays)
    return folder / "random.npz"


STAGES: dict[str, tuple[Callable[..., list[dict[str, Any]]], tuple[str, ...]]] = {  # and the settings that each takes
    "runs": (runs, ("tiny",)),
    "gradients": (gradients, ("tiny",)),
    "speed": (speed, ("tiny",)),
    "moco_demo": (moco_demo, ("tiny", "data_dir", "seconds")),
}


def _main(values: Any) -> None:
    workdir = Path(values.workdir).absolute()
    first_gpu(workdir, values.stages, tiny=values.tiny, data_dir=values.data_dir, seconds=values.seconds)


if __name__ == "__main__":
    flags.DEFINE_list("stages", list(STAGES), "Stages, in this order.")
    flags.DEFINE_bool("tiny", False, "Everything small, for a CPU: a few minutes.")
    flags.DEFINE_string("data_dir", None, "Folder of CIFAR-10, for moco_demo.")
    flags.DEFINE_float("seconds", 300, "How long moco_demo trains, about.", lower_bound=1)
    command.run(_main, config=False, strings={"workdir": "where tables and runs go"})
