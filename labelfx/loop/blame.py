"""Whose mistake it is, in one line: what builders and steps raise, with the part of the configuration at fault."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from labelfx.config import ConfigError
from labelfx.data import DataError


@contextlib.contextmanager
def blame(config: Mapping[str, Any]) -> Iterator[None]:
    """Names the part of a phase's configuration at fault where its method cannot work on these images."""
    try:
        yield
    except KeyError as error:
        if error.args[0] not in ("labelled", "unlabelled"):
            raise
        stream, name = error.args[0], config["method"]["name"]
        raise ConfigError(f"config.batch.{stream} = 0: {name} reads {stream} images; must be at least 1") from None
    except DataError:
        raise
    except (OverflowError, TypeError, ValueError) as error:
        raise ConfigError(f"config.method: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """What a builder says of its arguments, with the path of the part."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
