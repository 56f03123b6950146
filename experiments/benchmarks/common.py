"""What the benchmarks share: interleaved measurements, the real loop with a clock in it, and the report."""

import concurrent.futures
import contextlib
import dataclasses
import datetime
import importlib
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from labelfx import config as configs
from labelfx.config import plain
from labelfx.data import Dataset, Split
from labelfx.data.batches import label_view
from labelfx.loop import metrics, results, run
from labelfx.loop.checkpoint import Checkpoints
from labelfx.loop.dispatch import Dispatcher, dispatches
from labelfx.loop.mesh import make_mesh, on_every_device
from labelfx.loop.training import Loop

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


def interleave(sides: Mapping[str, Callable[[], float]], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Side -> what it returned in `repeats` rounds A B A B ..., so that the machine's other work meets all sides alike.
    The `warm_up` rounds before them are not kept."""
    rounds = [{name: side() for name, side in sides.items()} for _ in range(warm_up + repeats)]
    return {name: [each[name] for each in rounds[warm_up:]] for name in sides}


def speed(count: int, work: Callable[[], Any]) -> Callable[[], float]:
    """A side that returns how many of `count` items a second `work` got through, waiting for the devices."""

    def side() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(work())
        return count / (time.perf_counter() - begin)

    return side


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def rows(rounds: Mapping[str, Sequence[float]], what: str = "images/s", **columns: Any) -> list[dict[str, Any]]:
    """A row for each side: its figures, and their ratio to those of the first side in the same rounds."""
    first = next(iter(rounds.values()))
    return [
        {
            **columns,
            "side": side,
            what: spread(values),
            "ratio": spread([ours / theirs for ours, theirs in zip(values, first, strict=True)]),
            "rounds": list(values),
        }
        for side, values in rounds.items()
    ]


def report(name: str, workdir: str | Path, settings: Mapping[str, Any], table: Sequence[Mapping[str, Any]]) -> dict:
    """Writes `workdir/NAME.json`, prints the table, and returns what is in the file."""
    device = jax.devices()[0]
    content = {
        "benchmark": name,
        "settings": settings,
        "rows": table,
        "device": {"kind": device.device_kind, "platform": device.platform, "cores": len(os.sched_getaffinity(0))},
        "load": os.getloadavg(),  # of the last 1, 5 and 15 minutes: above the cores, others were at work
        "versions": {"python": platform.python_version()}
        | {p: importlib.metadata.version(p) for p in PACKAGES if importlib.util.find_spec(p)},
        "commit": results.commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    Path(workdir).mkdir(parents=True, exist_ok=True)
    configs.write_text(Path(workdir) / f"{name}.json", json.dumps(content, indent=2) + "\n")
    print(markdown(table))
    return content


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """A table for each set of columns; a spread is its median, with its least and greatest in brackets."""
    tables = []
    for columns, group in itertools.groupby(table, lambda row: [key for key in row if not key.endswith("rounds")]):
        lines = [columns, ["---"] * len(columns), *([_cell(row[column]) for column in columns] for row in group)]
        tables.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(tables)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{_cell(value['median'])} ({_cell(value['low'])} to {_cell(value['high'])})"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def for_this_device(sizes: Mapping[str, Any]) -> Any:
    """What to measure with: `sizes` has the keys "cpu" and "accelerator"."""
    return sizes["cpu" if jax.default_backend() == "cpu" else "accelerator"]


@dataclasses.dataclass
class Clocked(Loop):
    """The loop of a run as it is, with a clock in it."""

    marks: list[tuple[int, float]] = dataclasses.field(default_factory=list)  # at each log, which waits: steps, time
    held: list[float] = dataclasses.field(default_factory=list)  # seconds that each save kept the loop

    def log(self, values: dict[str, jax.Array]) -> None:
        super().log(values)
        jax.block_until_ready(self.state)
        self.marks.append((self.done, time.perf_counter()))

    def save(self) -> None:
        jax.block_until_ready(self.state)
        begin = time.perf_counter()
        super().save()
        self.held.append(time.perf_counter() - begin)

    def images_per_second(self) -> float:
        """From the first log, after compilation, to the last, before the last save."""
        (first, begin), (last, end) = self.marks[0], self.marks[-1]
        return (last - first) * self.phase.batch_size / (end - begin)


def prepare(config: Mapping[str, Any], folder: Path, images: np.ndarray | None = None) -> Clocked:
    """A run just before its first step, on its own data or on `images` of two classes."""
    checked = configs.check(config)
    if images is None:
        dataset, view = run.load_data(checked, folder)
    else:
        split = Split(images, np.arange(len(images), dtype=np.int32) % 2)
        dataset, view = Dataset(split, split, ("a", "b")), label_view(split, np.arange(2))
    loop = Clocked(
        config=checked,
        workdir=folder,
        dataset=dataset,
        view=view,
        model=run.build_model(checked, dataset),
        mesh=make_mesh(checked.devices, checked.fsdp),
        root=jax.random.key(checked.seed),
    )
    loop.phase = loop.build(0)
    loop.enter(0)
    return loop


def run_loop(config: Mapping[str, Any], folder: Path) -> Clocked:
    """A run's first phase, from beginning to end, in an empty folder."""
    loop = prepare(config, folder)
    with Checkpoints(folder, keep=1) as loop.checkpoints:
        loop.run()
    return loop


def simclr(model: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The recipe with this backbone and batch, on one device that holds the images."""
    config = plain(importlib.import_module("configs.simclr").get_config())
    changes = {"model": dict(model), "batch": {"labelled": 0, "unlabelled": batch}, "devices": 1}
    return config | changes | {"data": config["data"] | {"placement": "device"}}


class Steps:
    """The loop's batches and steps, as many as one asks for, without its logs and saves."""

    def __init__(self, config: dict[str, Any], images: np.ndarray | None = None):
        with tempfile.TemporaryDirectory() as folder:
            loop = prepare(config | {"log_every": 10**6, "save_every": 10**6}, Path(folder), images)
        self.loop, everywhere = loop, on_every_device(loop.mesh)
        count, progress = loop.config.steps_per_dispatch, loop.record.progress
        self.step = Dispatcher(loop.phase.method, loop.mesh, loop.state, count, loop.phase.batch_size, progress)
        bad = {name: np.int32(metrics.NEVER) for name in loop.metrics(loop.phase, loop.state, loop.table)}
        self.state, self.bad = loop.state, jax.device_put(bad, everywhere)
        self.key = jax.device_put(loop.root, everywhere)

    def __call__(self, steps: int = 1) -> Any:
        """Takes `steps` of them, which `steps_per_dispatch` must divide, and waits for the last."""
        for count, batch in self._dispatches(steps):
            self.state, self.bad, values = self.step(count, *self._arguments(batch))
            self.loop.done += count
        return jax.block_until_ready(values)

    def program(self) -> str:
        """The compiled step, as the text of its HLO."""
        return self._lowered().compile().as_text() or ""

    def flops(self) -> float:
        """Of one step, counted by XLA in the program as it was written; for one step a dispatch."""
        about: Any = self._lowered().cost_analysis()
        return about["flops"]

    def _lowered(self) -> jax.stages.Lowered:
        count = self.loop.config.steps_per_dispatch
        _, batch = next(self._dispatches(count))
        return self.step.programs[count].lower(*self._arguments(batch))

    def _dispatches(self, steps: int) -> Iterator[tuple[int, Any]]:
        loop = self.loop
        return dispatches(loop.config, loop.mesh, loop.how(loop.phase, loop.table), loop.done, loop.done + steps)

    def _arguments(self, batch: Any) -> tuple[Any, ...]:
        return self.state, self.bad, self.loop.fixed, batch, self.key, np.int32(self.loop.done)


def matmul_ceiling() -> Callable[[], float]:
    """A side that returns FLOP/s of a large matrix product: bfloat16 on an accelerator, float32 on CPU."""
    size, dtype = for_this_device({"cpu": (1024, jnp.float32), "accelerator": (8192, jnp.bfloat16)})
    matrix, product = jnp.ones((size, size), dtype), jax.jit(jnp.matmul)
    times = 10
    product(matrix, matrix)
    return speed(times * 2 * size**3, lambda: [product(matrix, matrix) for _ in range(times)])


def peak_memory() -> float | None:
    """GB of a device, the most since this process began; None where the device does not say."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 1e9 if stats else None


class CompileSeconds:
    """Context: seconds that the compiler took for the training step."""

    def __enter__(self) -> "CompileSeconds":
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **about: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration" and about.get("fun_name") == "jit(steps)":
            self.seconds += duration_secs


@contextlib.contextmanager
def compile_cache(workdir: str | Path) -> Iterator[None]:
    """A persistent compilation cache that begins empty: only the first of several equal programs is compiled."""

    def use(settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    Path(workdir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir) as folder:
        settings = {"jax_compilation_cache_dir": folder, "jax_persistent_cache_min_compile_time_secs": 0.0}
        before = {name: getattr(jax.config, name) for name in settings}
        use(settings)
        try:
            yield
        finally:
            use(before)


def in_new_process(function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """What `function(*arguments)` returns in a process of its own, with these variables in its environment."""
    with new_process(**environment) as process:
        return process.submit(function, *arguments).result()


def new_process(**environment: str) -> concurrent.futures.Executor:
    """A process with these variables in its environment, from its start, which the first task waits for."""
    with mock.patch.dict(os.environ, environment):
        process = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        process.submit(os.getpid).result()
    return process
