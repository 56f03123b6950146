"""A folder is of one process at a time."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

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
        try:
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().decode(errors="replace").strip() or "another process"
            raise ConfigError(f"{folder}: in use by {who}; wait for its end or use another workdir") from None
        except (ImportError, OSError) as error:
            logger.warning("%s: no lock (%s); see to it that no other run writes there", folder, error)
        with contextlib.suppress(OSError):  # the disk is full, which is said where it matters
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
