"""Small files of a workdir: read with one line for what is wrong, written whole or not at all."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from labelfx.config.errors import ConfigError

OUTSIDE = "outside.json"  # in a workdir: the files of code outside of labelfx that its run uses, with their sha256


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ConfigError: it holds none; one line that names it.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not as it was written ({error})") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not as it was written (holds no object)")
    return found


def local(path: str | Path) -> Path:
    """A path on this machine.

    Raises:
      ConfigError: it is an address such as gs://BUCKET/PATH, of which `Path` makes a folder called `gs:`.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # one letter is a drive of Windows
        raise ConfigError(f"{path}: an address, where only a path on this machine can be")
    return Path(path)


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again, for labelfx."""
    return local(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelfx"


def write_text(path: Path, text: str) -> None:
    """All or nothing: a killed process leaves the old file or the new one."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when it is complete, and is gone where it could not be written."""
    scratch = path.with_name(path.name + ".tmp")
    try:
        with scratch.open("wb") as file:
            yield file
        scratch.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which file
            error.filename = str(path)
        scratch.unlink(missing_ok=True)
        raise


def recorded(workdir: Path) -> dict[str, str]:
    path = workdir / OUTSIDE
    return {name: str(found) for name, found in read_json(path).items()} if path.exists() else {}
