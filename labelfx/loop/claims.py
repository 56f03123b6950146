"""A folder is of one process at a time."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import jax

from labelfx.config import ConfigError
from labelfx.loop import bucket

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keeps every other process that claims `folder` out of it; of the processes of one run the first does so.

    It is a lock of the operating system on `folder/.lock`, which goes with the process however that ends. On a file
    system without locks there is a warning instead. In a bucket it is an object, see `bucket.claim`.

    Raises:
      ConfigError: another process holds it; the message says which.
    """
    if jax.process_index() > 0:
        yield
        return
    if not isinstance(folder, Path):
        with bucket.claim(folder):
            yield
        return
    with (folder / ".lock").open("a+b", buffering=0) as file:
        if not locked(file):
            file.seek(0)
            who = file.read().decode(errors="replace").strip() or "another process"
            raise ConfigError(f"{folder}: in use by {who}; wait for its end or use another workdir")
        with contextlib.suppress(OSError):  # the disk is full, which is said where it matters
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def locked(file: IO) -> bool:
    """Whether this process has the operating system's lock on an open file from now on; with a warning also where the
    file system has no locks."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError) as error:
        logger.warning("%s: no lock (%s); see to it that no other run writes there", Path(file.name).parent, error)
    return True
