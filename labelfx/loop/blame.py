"""Whose mistake it is, in one line: what builders and steps raise, with the part of the configuration at fault."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from labelfx.config import ConfigError
from labelfx.config.errors import located
from labelfx.data import DataError
from labelfx.data.weak import COLUMNS

KINDS = {  # of what is said of rows, by the column that it gives
    "given": "weak noisy_rest",
    "candidates": "weak partial or complementary",
    "votes": "weak annotators or recorded",
    "observed": "weak positive_unlabelled",
    "propensity": "weak positive_unlabelled with known=True",
    "bag": "weak bags or proportions",
    "bag_target": "weak bags or proportions",
    "client": "weak clients",
    "domain": "weak domains",
    "time": "weak drift",
    "flagged": "weak poisoned",
}
GIVEN = {"valid": "whole_bags", "client_share": "by_client"}  # columns of miners' own


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
        if isinstance(error, KeyError) and stream in COLUMNS:
            kinds = KINDS.get(stream, "a source that has it, or config.labels.weak column")
            raise ConfigError(f"config.labels gives no {stream!r}, which {name} reads; take {kinds}") from None
        if isinstance(error, KeyError) and stream in GIVEN:
            found = f"config.batches gives no {stream!r}, which {name} reads; take {GIVEN[stream]}"
            raise ConfigError(found) from None
        if isinstance(error, KeyError) and stream == "image":
            raise ConfigError(f"config.method: {located(error)}: it is batch[...]['input'] now") from None
        raise ConfigError(f"config.method: {located(error)}") from error


@contextlib.contextmanager
def named(path: str) -> Iterator[None]:
    """What a builder says of its arguments, with the path of the part."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
