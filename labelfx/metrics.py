"""Where numbers go: `metrics.jsonl` always, TensorBoard events, one progress line. And the guard against NaN."""

import datetime
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

NEVER = 2**31 - 1


class NonFinite(RuntimeError):
    """NaN or Inf; the message is one line for the user."""


def first_bad(metrics: Any, before: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    """For each metric the first step at which it was not finite, int32, NEVER where it always was."""
    return {k: jnp.where(jnp.isfinite(v), before[k], jnp.minimum(before[k], step)) for k, v in metrics.items()}


@jax.jit
def finite(tree: Any) -> jax.Array:
    """Whether every number in the tree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _event_writer(folder: Path, start: int) -> Any:
    """clu's writer where TensorFlow is installed, else tensorboardX's, which needs none."""
    try:
        from clu.metric_writers import SummaryWriter

        return SummaryWriter(str(folder))
    except ImportError:
        import tensorboardX

        class Events(tensorboardX.SummaryWriter):
            def write_scalars(self, step, scalars):
                for name, value in scalars.items():
                    self.add_scalar(name, value, step)

        # Files are named by the second: a quick resume must not write over the file before it.
        return Events(str(folder), flush_secs=10, filename_suffix=f".{start}")


class Writer:
    """Writes scalars of a workdir. On a resume, lines from after the restored step are dropped first."""

    def __init__(self, workdir: Path, *, start: int):
        path = workdir / "metrics.jsonl"
        if path.exists():
            kept = []
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= start:
                        kept.append(line + "\n")
                except (ValueError, KeyError):
                    continue  # a line cut short by a kill
            scratch = path.with_name(path.name + ".tmp")
            scratch.write_text("".join(kept))
            scratch.replace(path)
        self.lines = path.open("a", buffering=1)
        self.events = _event_writer(workdir / "tensorboard", start)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        # JSON has no NaN: null keeps every line readable by any parser.
        plain = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        self.lines.write(json.dumps({"step": step, **plain}) + "\n")
        self.events.write_scalars(step, scalars)

    def close(self) -> None:
        self.lines.close()
        self.events.close()


class Progress:
    """One line a log: step, images a second, the losses, the time to go. Overwritten in place on a terminal."""

    def __init__(self, name: str, start: int, total: int, images: int):
        """`images` is the number a step takes, `total` the run's last step."""
        self.name, self.total, self.images = name, total, images
        self.begin = self.last = (start, time.perf_counter())
        self.mean = 0.0  # images a second since the beginning

    def images_per_second(self, step: int) -> float:
        """Between the last call and this one."""
        now = (step, time.perf_counter())
        recent, self.mean = (
            self.images * (now[0] - before[0]) / max(now[1] - before[1], 1e-9) for before in (self.last, self.begin)
        )
        self.last = now
        return recent

    def show(self, step: int, speed: float, scalars: dict[str, float]) -> None:
        left = datetime.timedelta(seconds=round((self.total - step) * self.images / speed)) if speed else "?"
        losses = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items() if "loss" in name)
        line = f"{self.name}  step {step}/{self.total}  {speed:,.0f} images/s  {losses}  ETA {left}"
        terminal, last = sys.stderr.isatty(), step == self.total
        print("\r\x1b[K" * terminal + line, end="" if terminal and not last else "\n", file=sys.stderr, flush=True)
