"""Where numbers go: `metrics.jsonl` always, TensorBoard events, one progress line. And the guard against NaN."""

import contextlib
import datetime
import json
import logging
import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from labelfx.config import replacing, write_text

NEVER = 2**31 - 1
CLEAR = "\r\x1b[K"  # a terminal's line
PATIENCE = 4.0  # seconds without a word
SEND_EVERY = 30.0  # seconds between two copies of the metrics to a bucket

logger = logging.getLogger(__name__)


class NonFinite(RuntimeError):
    """NaN or Inf; the message is one line for the user."""


class EvalFailed(RuntimeError):
    """An eval of a finished run has raised; the message is one line for the user."""


def first_bad(metrics: Any, before: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    """For each metric the first step at which it was not finite, int32, NEVER where it always was."""
    return {k: jnp.where(jnp.isfinite(v), before[k], jnp.minimum(before[k], step)) for k, v in metrics.items()}


@jax.jit
def finite(tree: Any) -> jax.Array:
    """Whether every number in the tree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


class _Events(EventsWriter):
    """TensorBoard's events, with a method as clu's writers have it.

    Not clu's own, which imports TensorFlow, that then takes the GPU's memory from JAX; and without tensorboardX's
    thread: a full disk ends that one, and who waits for it then waits for ever.
    """

    def __init__(self, folder: Path, start: int):
        folder.mkdir(exist_ok=True)
        # Files are named by the second: a quick resume must not write over the file before it.
        super().__init__(str(folder / "events"), f".{start}")

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self.flush()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, each `step` and numbers, None for NaN and infinity; none if there is no file.

    What is no line of a log is left out, with a warning that counts them; but a last one that a kill cut short without
    a word.
    """
    kept, lost = [], 0
    *lines, last = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for line in [*lines, last] if last else lines:
        try:
            values = json.loads(line)
            numbers = all(value is None or type(value) in (int, float) for value in values.values())
            if not numbers or type(values["step"]) is not int or values["step"] < 0:
                raise ValueError
            kept.append(values)
        except (ValueError, KeyError, AttributeError, RecursionError):
            lost += line is not last or not b'{"step": '.startswith(line[:9])
    if lost:
        logger.warning("%s: left out %d damaged lines of %d", path, lost, lost + len(kept))
    return kept


class MetricWriter(Protocol):
    """What a user's writer has; those of `clu.metric_writers` do."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...


def scalars_of(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of evals, as `EVAL/METRIC`."""
    return {f"{name}/{key}": v for name, part in found.items() for key, v in part.items() if type(v) is float}


class Writer:
    """Writes scalars of a workdir, and to `also`. On a resume, lines from after the restored step are dropped first.

    No object of a bucket grows: what is written for one lies on this machine, from where `send` brings all of it.
    """

    def __init__(self, workdir: Path, *, start: int, also: MetricWriter | None = None):
        self.also = also
        self.workdir, self.sent = workdir, time.monotonic()
        self.here = None if isinstance(workdir, Path) else tempfile.TemporaryDirectory()
        folder = workdir if self.here is None else Path(self.here.name)
        self.path = folder / "metrics.jsonl"
        if (before := workdir / "metrics.jsonl").exists():
            kept = [line for line in read(before) if line["step"] <= start]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.lines = self.path.open("a", buffering=1)
        self.events = _Events(folder / "tensorboard", start)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        # JSON has no NaN: null keeps every line readable by any parser.
        plain = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        try:
            self.lines.write(json.dumps({"step": step, **plain}) + "\n")
            self.events.write_scalars(step, scalars)
        except OSError as error:
            error.filename = str(self.path.parent)  # a full disk does not say where
            raise
        if self.also is not None:
            self.also.write_scalars(step, scalars)
        if time.monotonic() - self.sent > SEND_EVERY:
            self.send()

    def send(self) -> None:
        """To the bucket, if the workdir is in one: by now and then, and before each checkpoint, whose metrics must be
        there when it is."""
        if self.here is not None:
            for path in (self.path, *Path(self.here.name, "tensorboard").iterdir()):
                with replacing(self.workdir / path.relative_to(self.here.name)) as file:
                    file.write(path.read_bytes())
            self.sent = time.monotonic()

    def close(self) -> None:
        if self.also is not None:
            self.also.flush()
        for each in (self.lines, self.events):
            with contextlib.suppress(OSError):  # `write` has raised it already, and its message is the one to read
                each.close()
        if self.here is not None:
            with self.here, contextlib.suppress(OSError):
                self.send()


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Says on standard error what is being done, if it takes long."""
    timer = threading.Timer(
        PATIENCE, lambda: print(f"{CLEAR * sys.stderr.isatty()}{what} ...", file=sys.stderr, flush=True)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Progress:
    """One line a log: step, images a second, the losses, the time to go. Overwritten in place on a terminal."""

    def __init__(self, name: str, total: int):
        """`total` is the run's last step."""
        self.name, self.total = name, total
        self.images, self.last = 0, (0, 0.0)
        self.seen, self.took = 0, 0.0  # images and seconds of all phases
        self.shown = time.perf_counter()

    def start(self, step: int, images: int) -> None:
        """The clock starts here, and a step takes `images`."""
        self.images, self.last = images, (step, time.perf_counter())

    def leave_out(self, seconds: float, steps: int = 0) -> None:
        """Something else took `seconds`, or these steps did, which do not count."""
        self.last = (self.last[0] + steps, self.last[1] + seconds)

    def images_per_second(self, step: int) -> float:
        """Between the last call, or the start, and this one; 0 where no step between them counts."""
        now = (step, time.perf_counter())
        seen, took = self.images * (now[0] - self.last[0]), max(now[1] - self.last[1], 1e-9)
        self.seen, self.took, self.last = self.seen + seen, self.took + took, now
        return seen / took

    @property
    def mean(self) -> float | None:
        """Images a second of all phases and resumes; None before any."""
        return self.seen / self.took if self.seen else None

    def show(self, step: int, speed: float, scalars: dict[str, float]) -> None:
        left = datetime.timedelta(seconds=round((self.total - step) * self.images / speed)) if speed else "?"
        losses = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items() if "loss" in name)
        line = f"{self.name}  step {step}/{self.total}  {speed:,.0f} images/s  {losses}  ETA {left}"
        self._print(line, last=step == self.total)

    def silent(self) -> bool:
        """Whether there was no line for long."""
        return time.perf_counter() - self.shown > PATIENCE

    def tell(self, step: int) -> None:
        self._print(f"{self.name}  step {step}/{self.total}", last=False)

    def _print(self, line: str, last: bool) -> None:
        terminal, self.shown = sys.stderr.isatty(), time.perf_counter()
        print(CLEAR * terminal + line, end="" if terminal and not last else "\n", file=sys.stderr, flush=True)
