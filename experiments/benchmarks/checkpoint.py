"""What checkpoints cost the loop: its speed with a save never, seldom and often.

    python -m experiments.benchmarks.checkpoint --workdir=/tmp/labelfx/benchmarks --config=simclr

The real loop on the data and the method of the configuration, with a small network and with one whose state is large
for the work of its step, the worst case. Saves are asynchronous: the loop is held while the state is checked and
copied, and slowed while it is written.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labelfx.config import command, plain

from . import common

SIZES = {
    "cpu": {
        "models": (
            {"name": "conv3", "width": 32, "dtype": "float32"},
            {"name": "mlp", "hidden": (2048, 2048), "dtype": "float32"},
        ),
        "batch": 128,
        "steps": 60,
        "save_every": (20, 5),
        "repeats": 3,
    },
    "accelerator": {
        "models": (
            {"name": "resnet18", "stem": "cifar", "width": 64, "dtype": "bfloat16"},
            {"name": "resnet50", "stem": "cifar", "width": 64, "dtype": "bfloat16"},
        ),
        "batch": 512,
        "steps": 600,
        "save_every": (100, 20),
        "repeats": 3,
    },
}
NEVER = 10**6


def checkpoint(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    models: Sequence[Mapping[str, Any]],
    batch: int,
    steps: int,
    save_every: Sequence[int],
    repeats: int,
) -> dict:
    """Images a second with each `save_every`, the bytes of a checkpoint, and how long each held the loop.

    Args:
      config: a configuration of two-view contrastive learning.
      workdir: where `checkpoint.json` goes.
      models: backbones.
      batch: images.
      steps: after those of the first log, which are as many as the largest `save_every`.
      save_every: steps between saves; 'never' comes first.
      repeats: rounds.
    """
    settings: dict[str, Any] = {
        "models": models,
        "batch": batch,
        "steps": steps,
        "save_every": save_every,
        "repeats": repeats,
    }
    settings["config"] = plain(config)
    table = []
    with common.compile_cache(workdir):
        for model in models:
            changed = settings["config"] | {"model": model, "batch": {"labelled": 0, "unlabelled": batch}}
            table += _measure(changed, workdir, steps, save_every, repeats)
    return common.report("checkpoint", workdir, settings, table)


def _measure(
    config: dict[str, Any], workdir: str | Path, steps: int, save_every: Sequence[int], repeats: int
) -> list[dict]:
    held: dict[str, list[float]] = {}
    size: dict[str, int] = {}
    first = max(save_every)

    def side(name: str, every: int) -> Callable[[], float]:
        def measure() -> float:
            changes = {"save_every": every, "log_every": first, "steps": first + steps}
            with tempfile.TemporaryDirectory(dir=workdir) as folder:
                loop = common.run_loop(config | changes, Path(folder))
                newest = max((Path(folder) / "checkpoints").iterdir(), key=lambda path: int(path.name))
                size[name] = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
            held.setdefault(name, []).extend(loop.held[1:-1])  # the first waits for nothing, the last is the run's end
            return loop.images_per_second()

        return measure

    sides = {"never": side("never", NEVER)}
    sides |= {f"every {every} steps": side(f"every {every} steps", every) for every in save_every}
    found = common.rows(common.interleave(sides, repeats), model=config["model"]["name"])
    for row in found:
        row["MB"] = size[row["side"]] / 1e6
        row["held s a save"] = common.spread(held[row["side"]]) if held[row["side"]] else None
    return found


if __name__ == "__main__":
    command.run(lambda flags: checkpoint(flags.config, flags.workdir, **common.for_this_device(SIZES)), config=True)
