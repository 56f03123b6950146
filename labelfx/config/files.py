"""A run's folder, on this machine or in a bucket, and its small files: read with one line for what is wrong, written
whole or not at all.

A folder of this machine is a `pathlib.Path`; `gs://BUCKET/PATH` is an `epath.Path`, which has the same methods. Where
the two differ stands here, in `loop/bucket.py` (one owner at a time) and in `loop/metrics.py` (no object grows).
"""

import contextlib
import functools
import io
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from labelfx.config.errors import ConfigError, first_line

DERIVATION = "derived.json"  # in a workdir: what its weights were made of, where no loop trained them
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


def place(path: str | Path) -> Any:
    """A run's folder: a path on this machine or, of gs://BUCKET/PATH, in a bucket of Google Cloud Storage.

    Raises:
      ConfigError: it is another address, or the bucket cannot be read: a package or the credentials are not there.
    """
    if not str(path).startswith("gs:/"):
        return local(path)
    bucket, _, name = str(path).removeprefix("gs:").lstrip("/").partition("/")
    if not (bucket and name.strip("/")):
        raise ConfigError(f"{path}: must be gs://BUCKET/PATH")
    return _bucket(bucket) / name.rstrip("/")


@functools.cache
def _bucket(name: str) -> Any:
    os.environ.setdefault("EPATH_USE_TF", "false")  # TensorFlow would take the GPU's memory from JAX
    try:
        import fsspec.config
        import gcsfs  # noqa: F401
        from etils import epath
        from google.cloud import storage  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"gs://{name}: needs {error.name}; pip install 'labelfx[gcs]'") from error
    logging.getLogger("gcsfs").setLevel(logging.ERROR)  # a warning a call where it may not ask for the kind of bucket
    # A list that is kept does not know what other processes, and Orbax, have written since.
    fsspec.config.conf["gcs"] = {**fsspec.config.conf.get("gcs", {}), "use_listings_cache": False}
    found = epath.Path(f"gs://{name}")
    try:
        if found.exists():
            return found
        why = "no such bucket, or these credentials may not see it"
    except Exception as error:  # of several libraries
        why = first_line(error)
    raise ConfigError(f"gs://{name}: {why}")


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


def make_folder(path: Path) -> None:
    """Where it is not there yet. A bucket has none, and gcsfs, asked for one, would make the bucket.

    Raises:
      ConfigError: it is a file, or lies below one.
    """
    if isinstance(path, Path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(f"{path}: must be a folder; it is a file or lies below one") from error


def absolute(path: Path) -> Path:
    """The one name of a folder, links resolved."""
    return path.resolve() if isinstance(path, Path) else path


def below(path: Path, name: str) -> list[Path]:
    """The files of this name below a folder."""
    if isinstance(path, Path):
        return list(path.rglob(name))
    import fsspec

    found = fsspec.filesystem("gcs").find(str(path))  # one request a thousand objects
    return [place(f"gs://{each}") for each in found if each.endswith(f"/{name}")]


@contextlib.contextmanager
def on_this_machine(path: Path) -> Iterator[Path]:
    """A file for libraries that read only those of this machine."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        copy.write_bytes(path.read_bytes())
        yield copy


def write_text(path: Path, text: str) -> None:
    """All or nothing: a killed process leaves the old file or the new one."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when it is complete, and is gone where it could not be written."""
    if not isinstance(path, Path):  # an object is there once all of it is, so that it needs no name of its own before
        content = io.BytesIO()
        yield content
        try:
            path.write_bytes(content.getvalue())
        except Exception as error:  # of several libraries
            raise OSError(f"{path}: not written ({first_line(error)})") from error
        return
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


def derivation(workdir: Path) -> dict[str, Any]:
    """What `labelfx.derive` wrote there of the runs that it started from; {} of a run that was trained."""
    path = workdir / DERIVATION
    return read_json(path) if path.exists() else {}
