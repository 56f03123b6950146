"""Time to the first step, with an empty and with a filled cache of compiled programs.

    python -m experiments.benchmarks.startup --workdir=/tmp/labelfx/benchmarks --config=simclr

Each is a process of its own, from its start to the end of the first step of the configuration.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx.config import command, plain
from labelfx.loop import metrics, run
from labelfx.loop.dispatch import dispatches, jit_step

from . import common


def startup(config: Mapping[str, Any], workdir: str | Path, *, repeats: int) -> dict:
    """Seconds of each part of the start, cold and warm.

    Args:
      config: any configuration.
      workdir: where `startup.json` goes.
      repeats: rounds, each with a cache of its own, empty for `cold` and what `cold` left for `warm`.
    """
    settings: dict[str, Any] = {"repeats": repeats, "config": plain(config)}
    Path(workdir).mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=workdir) as cache:
            for side in found.values():
                side.append(
                    common.in_new_process(_first_step, settings["config"], time.time(), JAX_COMPILATION_CACHE_DIR=cache)
                )
    table = common.rows({name: [sum(parts.values()) for parts in side] for name, side in found.items()}, "seconds")
    for row in table:
        parts = found[row["side"]]
        row |= {part: common.spread([each[part] for each in parts]) for part in parts[0]}
    return common.report("startup", workdir, settings, table)


def _first_step(config: Mapping[str, Any], started: float) -> dict[str, float]:
    """Seconds of each part, in order; they add up to the time since `started`."""
    marks = {"import": time.time()}
    run.keep_compiled_programs()
    with tempfile.TemporaryDirectory() as folder:
        loop = common.prepare(config, Path(folder))
    jax.block_until_ready(loop.state)
    marks["data and state"] = time.time()
    step = jit_step(loop.phase.method, loop.mesh, loop.state)
    bad = {name: np.int32(metrics.NEVER) for name in loop.metrics(loop.phase, loop.state, loop.table)}
    _, batch = next(dispatches(loop.config, loop.mesh, loop.how(loop.phase, loop.table), 0, loop.phase.stop))
    arguments = loop.state, bad, loop.fixed, batch, loop.root, np.int32(0)
    lowered = step.lower(*arguments)
    marks["trace"] = time.time()
    compiled = lowered.compile()
    marks["compile"] = time.time()
    jax.block_until_ready(compiled(*arguments))
    marks["first step"] = time.time()
    before = [started, *marks.values()]
    return {part: when - then for (part, when), then in zip(marks.items(), before, strict=False)}


if __name__ == "__main__":
    command.run(lambda flags: startup(flags.config, flags.workdir, repeats=3), config=True)
