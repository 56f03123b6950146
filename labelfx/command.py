"""What the commands share: flags, one line for a user's mistake, logging."""

import dataclasses
import logging
import os
import re
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_dict, config_flags

from labelfx.checkpoint import CheckpointError
from labelfx.config import DATA, ConfigError, Placement, Run, function, locate, names, nearest, parameters
from labelfx.data import DataError
from labelfx.distributed import PeerLost
from labelfx.loop.stopping import Interrupted
from labelfx.metrics import NonFinite

FLAGS = flags.FLAGS
WORKDIR = {"workdir": "the folder of the run: configuration, checkpoints, metrics, results"}


def _located(argv: list[str]) -> list[str]:
    """`--config NAME` and `--config=NAME` with the file of a recipe in place of its name."""
    found, after = [], False
    for word in argv:
        if after:
            word = locate(word)
        after = word in ("--config", "-config")
        if word.startswith(("--config=", "-config=")):
            flag, _, name = word.partition("=")
            word = f"{flag}={locate(name)}"
        found.append(word)
    return found


def _change_source(config: Any) -> None:
    """Where the command line names another source of data, `config.data` takes that one's keys: those that it has
    already, the defaults, and what the command line gives."""
    given = dict(word.split("=", 1) for word in sys.argv if re.match(r"--?config\.data\.\w+=", word))
    given = {flag.rpartition(".")[2]: value for flag, value in given.items()}
    source = given.get("name", "").partition(":")[0]
    if source not in names(DATA):
        return  # `check` says what there is
    before, config.data = config.data, ConfigDict({"name": given["name"], "placement": config.data.placement})
    for key, parameter in parameters(function(DATA, source))[1].items():
        if key in before:
            config.data[key] = before[key]
        elif parameter.default is not parameter.empty:
            config.data[key] = parameter.default
        elif key in given:
            kind = (typing.get_args(parameter.annotation) or [parameter.annotation])[0]  # of Annotated, Literal
            config.data[key] = config_dict.placeholder(kind if isinstance(kind, type) else type(kind))


class _Recipe(flags.ArgumentParser[ConfigDict]):
    """A config file, with the knobs that it leaves at their defaults, so that the command line can override them."""

    def __init__(self, config_file: flags.ArgumentParser):
        self.config_file = config_file

    def parse(self, path: str) -> ConfigDict:
        config: Any = self.config_file.parse(path)
        with config.unlocked():
            for field in dataclasses.fields(Run):
                if field.default is not dataclasses.MISSING and field.name not in config:
                    config[field.name] = field.default
            if "data" in config and "placement" not in config.data:
                config.data.placement = Placement.placement
            _change_source(config)
        for word in sys.argv:
            override = re.match(r"--?(?:no)?(config\.[^=]+)", word)
            node, path = config, override[1] if override else "config"
            for key in path.split(".")[1:]:
                keys = list(node) if isinstance(node, ConfigDict) else []
                if key not in keys:
                    raise flags.Error(f"--{path}: the config file has no {key!r} there; {nearest(key, keys)}")
                node = node[key]
        return config


def run(main: Callable[[Any], Any], *, config: bool, strings: Mapping[str, str] = WORKDIR) -> None:
    """Parses the flags `strings` (name -> meaning) and, where asked, `--config` and its overrides, all of which must be
    given; then calls `main(flags)`.

    A mistake of the user's, or a run that had to stop, is one line on standard error and exit code 2 or 1.
    """
    required = dict(strings)
    for name, meaning in strings.items():
        flags.DEFINE_string(name, None, meaning)
    if config:
        required["config"] = "a recipe's name or a config file; --config.a.b=v overrides"
        config_flags.DEFINE_config_file("config", None, required["config"])
        FLAGS["config"].parser = _Recipe(FLAGS["config"].parser)

    def parse(argv: list[str]) -> list[str]:
        try:
            rest = FLAGS(_located(argv))
        except (flags.Error, ConfigError) as error:
            _stop(2, str(error))
        except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:  # what a config file may raise
            _stop(2, f"--config: {error}")
        for name, meaning in required.items():
            if FLAGS[name].value is None:
                _stop(2, f"--{name}: missing; {meaning}")
        if rest[1:]:
            _stop(2, f"{rest[1]!r}: not a flag; flags are --NAME=VALUE")
        if FLAGS["verbosity"].using_default_value:
            # Warnings; absl's own default, once flags are parsed, is to narrate.
            FLAGS.verbosity = -1  # type: ignore[assignment]
            absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
            # Orbax logs through absl and asyncio, and what it logs as an error it either raises as well or copes with.
            for name in ("absl", "asyncio"):
                logging.getLogger(name).addFilter(lambda record: False)
        return rest

    def guarded(_: list[str]) -> None:
        try:
            main(FLAGS)
        except (ConfigError, DataError, FileNotFoundError) as error:
            _stop(2, str(error))
        except (NonFinite, CheckpointError, PeerLost, OSError) as error:
            _stop(1, str(error))
        except MemoryError as error:
            _stop(1, f"not enough memory: {error}")
        except Interrupted:
            raise SystemExit(130) from None
        except KeyboardInterrupt:
            print("Ctrl-C: stopped; what was done before is kept, and the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None

    app.run(guarded, flags_parser=parse)


def _stop(code: int, message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        os._exit(code)  # a usual exit waits for the other processes, which wait for this one
    raise SystemExit(code)
