"""Whose mistake it is, in one line: what builders and steps raise, with the part of the configuration at fault."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from labelfx.config import ConfigError
from labelfx.config.errors import located
from labelfx.data import DataError


@contextlib.contextmanager
def blame(config: Mapping[str, Any]) -> Iterator[None]:
    """Names the part of a phase's configuration at fault where its method cannot work on these images."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        stream, name = str(error).strip("'"), config["method"]["name"]
        if isinstance(error, KeyError) and stream in config["batch"]:
            found = f"config.batch.{stream} = 0: {name} reads {stream} images; must be at least 1"
            raise ConfigError(found) from None
        raise ConfigError(f"config.method: {located(error)}") from error


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """What a builder says of its arguments, with the path of the part."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
