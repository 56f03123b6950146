"""Where does the time of a training step go? The profile of a few SimCLR steps, by what in the code asks for it.

    taskset -c 0 python -m experiments.benchmarks.trace --workdir=DIR

On one core of a CPU: what other threads do for a convolution is not recorded, and would count as gaps. Writes
DIR/trace.json and prints its table: milliseconds of a step that the devices' threads are at work, by kind, and what is
left of the wall time of all cores: gaps. An operation belongs to the innermost line of labelfx that it comes from; one
that the compiler has fused, to that of its result. `DIR/profile` holds the record itself, for Perfetto or TensorBoard.
"""

import collections
import functools
import gzip
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx.config import command, plain

from . import common

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {
        "model": {"name": "conv3", "width": 32, "dtype": "float32"},
        "batch": 256,
        "shape": (28, 28, 1),
        "steps": 5,
    },
    "accelerator": {
        "model": {"name": "resnet18", "stem": "cifar", "width": 64, "dtype": "bfloat16"},
        "batch": 1024,
        "shape": (32, 32, 3),
        "steps": 20,
    },
}
KINDS = {
    "data/augment": "augmentation",
    "objectives": "loss and its diagnostics",
    "loop/optim": "optimiser",
    "loop/state": "optimiser",
    "loop/metrics": "watch for NaN",
}
LAYERS = {"conv_general_dilated": "convolution", "dot_general": "dense layers"}
HOLDERS = ("while", "call", "conditional")  # what they hold is recorded too


def sources(program: str) -> dict[str, str]:
    """Operation of a compiled program -> kind, from the text of its HLO."""
    sections = {name: _section(program, name) for name in ("FileNames", "FileLocations", "StackFrames")}
    files = {number: text.strip('"') for number, text in sections["FileNames"].items()}
    places = {n: files[_field(text, "file_name_id")] for n, text in sections["FileLocations"].items()}
    frames = {
        # Parents are counted from one, and none is zero.
        n: (places[_field(text, "file_location_id")], str(int(_field(text, "parent_frame_id")) - 1))
        for n, text in sections["StackFrames"].items()
    }

    @functools.cache
    def innermost(frame: str) -> str:
        while frame in frames:
            path, frame = frames[frame]
            if "/labelfx/" in path:
                return path.rpartition("/labelfx/")[2].removesuffix(".py")
        return ""

    found = {}
    for match in re.finditer(r"^\s*(?:ROOT )?%(\S+) = .*? (\w[\w-]*)\(.*", program, re.MULTILINE):
        about = re.search(r'op_name="([^"]*)" stack_frame_id=(\d+)', match[0])
        name, place = (about[1], innermost(about[2])) if about else ("", "")
        if match[2] not in HOLDERS:
            found[match[1]] = _kind(place, name.rpartition("/")[2])
    return found


def _kind(place: str, operation: str) -> str:
    for beginning, kind in KINDS.items():
        if place.startswith(beginning):
            return kind
    if place.startswith("models"):
        return LAYERS.get(operation, "normalisation and ReLU")
    return "the rest" if operation else "copies into another layout"  # nobody's line: the compiler wanted them


def _section(program: str, name: str) -> dict[str, str]:
    lines = program.partition(f"\n{name}\n")[2].partition("\n\n")[0].splitlines()
    return {number: text for number, _, text in (line.partition(" ") for line in lines)}


def _field(text: str, name: str) -> str:
    found = re.search(rf"{name}=(\d+)", text)
    assert found is not None, text
    return found[1]


def record(folder: Path, work: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """Seconds of wall time, and of each operation over all threads, while `work` runs."""
    with jax.profiler.trace(str(folder)):
        begin = time.perf_counter()
        work()
        wall = time.perf_counter() - begin
    path = max(folder.glob("**/*.trace.json.gz"))  # folders are named by the time
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    seconds: dict[str, float] = collections.defaultdict(float)
    for event in events:
        if "hlo_op" in event.get("args", {}) and event["args"].get("hlo_module") == "jit_steps":
            seconds[event["args"]["hlo_op"]] += event["dur"] / 1e6
    return wall, seconds


def trace(workdir: str | Path) -> dict[str, Any]:
    """Returns what it writes to `workdir/trace.json`."""
    sizes = common.for_this_device(SIZES)
    images = np.random.default_rng(0).integers(0, 256, (4 * sizes["batch"], *sizes["shape"]), np.uint8)
    step = common.Steps(common.simclr(sizes["model"], sizes["batch"]), images)
    step(3)
    wall, seconds = record(Path(workdir) / "profile", lambda: step(sizes["steps"]))
    kinds = sources(step.program())
    totals: dict[str, float] = collections.defaultdict(float)
    for operation, spent in seconds.items():
        if operation in kinds:
            totals[kinds[operation]] += spent
    lanes = len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else 1
    totals["gaps"] = max(lanes * wall - sum(totals.values()), 0.0)
    each = 1e3 / sizes["steps"]
    table = [
        {"kind": kind, "ms a step": spent * each, "share": f"{100 * spent / (lanes * wall):.0f} %"}
        for kind, spent in sorted(totals.items(), key=lambda item: -item[1])
    ]
    settings = plain(sizes) | {"wall ms a step": wall * each, "threads": lanes}
    return common.report("trace", workdir, settings, table)


if __name__ == "__main__":
    command.run(lambda flags: trace(flags.workdir), config=False)
