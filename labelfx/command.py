"""What the commands share: flags, one line for a user's mistake, logging."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from labelfx.checkpoint import CheckpointError
from labelfx.config import ConfigError, locate
from labelfx.metrics import NonFinite

FLAGS = flags.FLAGS


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


def run(main: Callable[[Any], Any], *, config: bool) -> None:
    """Parses `--workdir` and, where asked, `--config` and its overrides; then calls `main(flags)`.

    A mistake of the user's, or a run that had to stop, is one line on standard error and exit code 1 or 2.
    """
    flags.DEFINE_string(
        "workdir", None, "Folder of the run: configuration, checkpoints, metrics, results.", required=True
    )
    if config:
        config_flags.DEFINE_config_file("config", None, "A recipe's name or a config file; --config.a.b=v overrides.")
        flags.mark_flag_as_required("config")

    def parse(argv: list[str]) -> list[str]:
        try:
            return FLAGS(_located(argv))
        except flags.Error as error:
            _stop(2, str(error))
        except (ConfigError, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            _stop(2, f"config: {error.args[0] if error.args else error}")

    def guarded(_: list[str]) -> None:
        try:
            main(FLAGS)
        except (ConfigError, FileNotFoundError) as error:
            _stop(2, str(error))
        except (NonFinite, CheckpointError) as error:
            _stop(1, str(error))

    app.run(guarded, flags_parser=parse)


def _stop(code: int, message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code)
