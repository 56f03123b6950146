"""What the commands share: flags, one line for a user's mistake, logging."""

import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import app, flags
from absl import logging as absl_logging

from labelfx.config import ConfigError, Written, literal, recipe
from labelfx.config.errors import located, outside
from labelfx.data import DataError
from labelfx.loop.checkpoint import CheckpointError
from labelfx.loop.distributed import PeerLost
from labelfx.loop.metrics import EvalFailed, NonFinite
from labelfx.loop.stopping import Interrupted

FLAGS = flags.FLAGS
WORKDIR = {"workdir": "the folder of the run: configuration, checkpoints, metrics, results"}


def run(main: Callable[[Any], Any], *, config: bool, strings: Mapping[str, str] = WORKDIR) -> None:
    """Parses the flags `strings` (name -> meaning) and, where asked, `--config` and its overrides, all of which must be
    given; then calls `main(flags)`, whose `flags.config` is the configuration as nested dicts.

    A mistake of the user's, a run that had to stop, or a failure of code that is not labelfx's, is one line on standard
    error and exit code 2 or 1.
    """
    required = dict(strings) | ({"config": "a recipe's name or a config file"} if config else {})
    for name, meaning in required.items():
        flags.DEFINE_string(name, None, meaning)
    dotted = re.compile(r"--?config\.([^=]+)(?:=(.*))?", re.DOTALL)

    def parse(argv: list[str]) -> list[str]:
        if {"-h", "-help", "--help"} & set(argv):
            print(_help(required))
            raise SystemExit(0)
        try:
            changes = {}
            for found in filter(None, map(dotted.fullmatch, argv if config else ())):
                if found[2] is None:
                    raise ConfigError(f"{found[0]}: has no value; write {found[0]}=VALUE")
                changes[found[1]] = Written(found[2])
            rest = FLAGS([word for word in argv if not (config and dotted.fullmatch(word))])
            for name, meaning in required.items():
                if FLAGS[name].value is None:
                    raise ConfigError(f"--{name}: missing; {meaning}")
            if rest[1:]:
                raise ConfigError(f"{rest[1]!r}: not a flag; flags are --NAME=VALUE")
            if config:
                FLAGS["config"].value = recipe(str(FLAGS["config"].value), changes)
        except (flags.Error, ConfigError, OSError) as error:
            _stop(2, str(error))
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
        except (NonFinite, EvalFailed, CheckpointError, PeerLost, OSError) as error:
            _stop(1, str(error))
        except MemoryError as error:
            _stop(1, f"not enough memory: {error}")
        except Interrupted:
            raise SystemExit(130) from None
        except KeyboardInterrupt:
            print("Ctrl-C: stopped; what was done before is kept, and the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            if outside(error) is None:
                raise
            _stop(1, located(error))

    app.run(guarded, flags_parser=parse)


def changes(words: Sequence[str]) -> dict[str, Any]:
    """What the flags `--override=PATH=VALUE` say, by dotted path.

    Raises:
      ConfigError: one has no value, or one that begins as a dict, list or tuple and is none.
    """
    found = {}
    for word in words:
        path, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--override={word}: must be PATH=VALUE, as in steps=1000")
        found[path] = literal(value)
        if isinstance(found[path], str) and value.startswith(tuple("{[(")):
            raise ConfigError(
                f"--override={word}: neither Python nor JSON, as in {{'name': 'crop_flip', 'flip': True}}"
            )
    return found


def _help(required: Mapping[str, str]) -> str:
    """What the command's module says of it, and its flags."""
    lines = [inspect.getdoc(sys.modules["__main__"]) or "", "", "Flags:"]
    defined = FLAGS.flags_by_module_dict()
    others = [
        flag for module in defined for flag in defined[module] if module == sys.argv[0] or module.startswith("labelfx.")
    ]
    found = [(f"--{name}=", f"{meaning}; required") for name, meaning in required.items()]
    if "config" in required:
        found.append(("--config.KEY.KEY=", "replaces a value of the configuration"))
    for flag in sorted((flag for flag in others if flag.name not in required), key=lambda flag: flag.name):
        default = f"; {flag.default_as_str} by default" if flag.default else ""
        found.append((f"--{flag.name}=", " ".join(flag.help.split()).rstrip(".") + default))
    return "\n".join([*lines, *(f"  {flag:<22}{meaning}" for flag, meaning in found)])


def _stop(code: int, message: str) -> None:
    print("error: " + " ".join(message.split()), file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        os._exit(code)  # a usual exit waits for the other processes, which wait for this one
    raise SystemExit(code)
