"""One owner at a time for a run's folder in a bucket, where no file can be locked."""

import contextlib
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labelfx.config import ConfigError
from labelfx.config.errors import first_line

BEAT, SILENCE = 15.0, 120.0  # seconds: between two signs of an owner's life, and after which it has no other


class _Lock:
    """The object that says whose a folder is. It is written only in the place of the generation that was seen last: of
    two that write at once the bucket refuses one."""

    def __init__(self, folder: Path):
        from google.cloud import storage

        bucket, _, self.name = f"{folder}/.lock".removeprefix("gs://").partition("/")
        self.bucket = storage.Client(project=None).bucket(bucket)
        self.me = {"process": str(os.getpid()), "host": socket.gethostname(), "token": uuid.uuid4().hex}
        self.generation = 0  # of what this process wrote last

    def seen(self) -> Any:
        """The object, with its `generation` and, as `metadata`, its owner; None where there is none."""
        return self.bucket.get_blob(self.name)

    def write(self, instead_of: int) -> bool:
        """Whether the folder is this process's: it was in the place of `instead_of`, 0 for no object."""
        from google.api_core.exceptions import PreconditionFailed

        blob = self.bucket.blob(self.name)
        blob.metadata = self.me
        try:
            blob.upload_from_string(b"", if_generation_match=instead_of)
        except PreconditionFailed:
            blob = self.seen()  # a request that was sent again may have met what it had itself written
            if blob is None or blob.metadata != self.me:
                return False
        self.generation = blob.generation
        return True

    def take(self, folder: Path) -> None:
        """ConfigError where another process shows a sign of life."""
        first, begin = None, time.monotonic()
        while True:
            found = self.seen()
            owner = getattr(found, "metadata", None) or {}
            if first is not None and found and found.generation != first:
                raise ConfigError(
                    f"{folder}: in use by {_who(owner)}; wait for its end or use another workdir. If that process is "
                    f"killed, the same command takes over: on its machine at once, elsewhere after {SILENCE:.0f} s"
                )
            if found is None or _dead(owner) or time.monotonic() - begin > SILENCE:
                if self.write(found.generation if found else 0):
                    return
                continue
            if first is None:
                first = found.generation
                _say(f"{folder}: held by {_who(owner)}; waiting up to {SILENCE:.0f} s for a sign that it lives ...")
            time.sleep(min(1.0, BEAT / 4))

    def beat(self, folder: Path, ended: threading.Event) -> None:
        """Signs of life until the claim has ended. Who finds the folder another's must not write there any more."""
        while not ended.wait(BEAT):
            with contextlib.suppress(Exception):  # the network may be back at the next one
                if not self.write(self.generation):
                    owner = getattr(self.seen(), "metadata", None) or {}
                    _say(f"error: {folder}: was silent for too long, and is taken over by {_who(owner)}")
                    os._exit(1)


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keeps every other process that claims `folder`, in a bucket, out of it.

    The owner writes `folder/.lock` anew every `BEAT` seconds. Who finds it there takes over at once if the owner was a
    process of this machine that is gone, and else waits: a sign of life refuses it, `SILENCE` seconds without one give
    it the folder. No two clocks are compared. An owner that was held still for longer ends when it finds out; what it
    wrote in between cannot be helped.

    Raises:
      ConfigError: another process holds it, or the bucket cannot be written; the message says which.
    """
    try:
        (lock := _Lock(folder)).take(folder)
    except ConfigError:
        raise
    except Exception as error:  # of several libraries
        raise ConfigError(f"{folder}: cannot be written: {first_line(error)}") from error
    ended = threading.Event()
    thread = threading.Thread(target=lock.beat, args=(folder, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(BEAT)  # no longer where the network hangs
        with contextlib.suppress(Exception):  # left behind, it is taken over
            lock.bucket.blob(lock.name).delete(if_generation_match=lock.generation)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _who(owner: dict[str, str]) -> str:
    return f"process {owner.get('process', '?')} on {owner.get('host', '?')}"


def _dead(owner: dict[str, str]) -> bool:
    """Whether it was a process of this machine that is gone."""
    if os.name != "posix" or owner.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(owner["process"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
