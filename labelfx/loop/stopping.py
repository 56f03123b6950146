"""How a run is asked to stop: SIGTERM, as preemption sends it, and Ctrl-C. The loop saves first."""

import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class Preempted(SystemExit):
    """SIGTERM came and the state is saved. The process exits with 143, as a terminated one does."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came and the state is saved, which a line has said."""


@dataclasses.dataclass
class Asked:
    """Whether somebody asked the run to stop, and how."""

    how: str = ""  # "SIGTERM", "Ctrl-C" or nothing
    dispatches: int = 0  # by this process

    def now(self) -> str:
        """`how`, after a dispatch; several processes agree on the one after which they say so."""
        self.dispatches += 1
        if jax.process_count() == 1:
            return self.how
        return "SIGTERM" if multihost_utils.reached_preemption_sync_point(self.dispatches) else ""


def stop(how: str, step: int) -> None:
    """Ends the run, whose state after `step` is saved."""
    print(f"{how}: step {step} is saved; the same command resumes", file=sys.stderr, flush=True)
    raise Preempted(143) if how == "SIGTERM" else Interrupted


@contextlib.contextmanager
def listening() -> Iterator[Asked]:
    """Notes what comes instead of dying of it; a second Ctrl-C does not wait. Only a main thread can listen."""
    asked = Asked()
    # Several processes are told of SIGTERM by JAX's preemption service, which listens itself.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _: object) -> None:
        if number == signal.SIGTERM:
            asked.how = "SIGTERM"
            return
        asked.how = asked.how or "Ctrl-C"
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        print("Ctrl-C: saving after the step at work; once more stops at once", file=sys.stderr, flush=True)

    # A process in the background of a shell has Ctrl-C ignored, and so it stays.
    numbers = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
