"""Metrics on their way from the devices to the writer, and the guard against NaN."""

from collections.abc import Callable
from typing import Any

import jax

from labelfx.loop import metrics


class Record:
    """Metrics are fetched one log late, so that the loop never waits for the devices."""

    def __init__(self, progress: metrics.Progress):
        self.progress = progress
        self.writer: metrics.Writer | None = None  # only the first process of several has one
        self.last_good: Callable[[], str] = lambda: "no checkpoint yet"
        self.late: Any = None

    def keep(self, step: int, values: dict[str, jax.Array], bad: dict[str, jax.Array]) -> None:
        """Writes the metrics handed in before and keeps these, of the step just dispatched, for the next time."""
        self.flush()
        self.late = (step, self.progress.images_per_second(step), values, bad)

    def flush(self) -> None:
        if self.late is None:
            return
        (step, speed, *arrays), self.late = self.late, None
        values, bad = jax.device_get(arrays)
        self.stop_if_bad(bad)
        if self.writer is not None:
            scalars = {name: float(value) for name, value in values.items()}
            self.progress.show(step, speed, scalars)
            self.writer.write(step, scalars | ({"images_per_second": speed} if speed else {}))

    def alive(self, step: int) -> None:
        """A word between two logs where there was none for long: the last log's metrics, or else how far the run is."""
        if self.progress.silent():
            if self.late is not None and jax.process_count() == 1:  # NaN in them stops all processes after one step
                self.flush()
            else:
                self.progress.tell(step)

    def stop_if_bad(self, bad: dict[str, Any]) -> None:
        """NonFinite if a metric was not finite at some step up to now (see `metrics.first_bad`)."""
        name = min(bad, key=lambda name: bad[name])
        if bad[name] != metrics.NEVER:
            raise metrics.NonFinite(f"{name} is NaN or infinite at step {bad[name] + 1}; {self.last_good()}")

    def stop_if_not_finite(self, step: int, bad: dict[str, jax.Array], state: Any) -> None:
        """A look at every metric up to now and at the state itself; NonFinite names what is not."""
        self.flush()
        self.stop_if_bad(jax.device_get(bad))
        if not metrics.finite(state):
            raise metrics.NonFinite(f"the state after step {step} holds NaN or Inf; {self.last_good()}")
