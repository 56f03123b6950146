"""Recipes by name or file, with values replaced."""

import ast
import contextlib
import difflib
import inspect
import json
import runpy
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from labelfx.config.annotations import Fields, Part
from labelfx.config.checks import check, find, rule_of
from labelfx.config.errors import ConfigError, located
from labelfx.config.rooms import folders, parameters
from labelfx.config.schema import METHODS, Run, names, nearest, plain


def recipes() -> dict[str, Path]:
    """Name -> file of the recipes that ship with the package, and of those in `configs/` of folders of LABELFX_PATH.

    Raises:
      ConfigError: two have one name.
    """
    package = Path(__file__).parents[1]
    shipped = next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())
    found: dict[str, Path] = {}
    for folder in (shipped, *(path / "configs" for path in folders())):
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if found.setdefault(name, path) != path:
                raise ConfigError(f"{path}: {found[name]} is a recipe of this name already; give it another")
    return found


def locate(name: str) -> str:
    """The file of `--config`: a path as it is, or that of a recipe of this name."""
    if Path(name).is_file():  # a workdir may be named like a recipe
        return name
    key, known = name.removeprefix("configs/").removesuffix(".py"), recipes()
    if key in known:
        return str(known[key])
    if key in names(METHODS):
        raise ConfigError(
            f"{name}: a method, not a recipe; recipes that use it: {', '.join(recipes_of(key)) or 'none'}"
        )
    close = " or ".join(map(repr, difflib.get_close_matches(key, known, n=5)))
    hint = f"did you mean {close}? " if close else ""
    raise ConfigError(f"{name}: neither a file nor a recipe; {hint}python -m labelfx.list recipes has them all")


def recipes_of(method: str) -> list[str]:
    """The recipes with this method in any of their phases."""
    phases = {name: [config, *config.get("phases", ())] for name in recipes() for config in [recipe(name)]}
    return [name for name, each in phases.items() if any(method == x["method"]["name"] for x in each if "method" in x)]


class Written(str):
    """A value as the command line has it: what it stands for depends on the key that it is of."""


def literal(text: str) -> Any:
    """What a text stands for: a value of Python or JSON, or a word without quotes."""
    for read in (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError):
            return read(text)
    return text


def settings(words: Iterable[str], how: str, taken: tuple[str, ...]) -> dict[str, Any]:
    """What the words KEY=VALUE of a flag `--set` say; ConfigError where one has no value, or its key is of those
    `taken` by the command itself, no setting of `how`."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: must be KEY=VALUE, as in weight=0.5")
        if key in taken:
            raise ConfigError(f"--set {word}: no setting of {how}")
        found[key] = literal(value)
    return found


def recipe(name: str, changes: Mapping[str, Any] = types.MappingProxyType({})) -> dict[str, Any]:
    """The configuration of a recipe, by its name or file, with values replaced by dotted path: {"method.ema": 0.99}.

    A part that is replaced by its name alone, {"data.name": "npz:FILE"}, keeps the keys that both functions take; a
    line on standard error names those that it goes without. A config file may return the result, with or without
    further changes.

    Raises:
      ConfigError: there is no such recipe, its file fails, or the configuration with the changes cannot run.
    """
    file = locate(name)
    try:
        get_config = runpy.run_path(file).get("get_config")
        if get_config is None:
            raise ConfigError("has no function get_config")
        found = get_config()
        if not isinstance(found, ConfigDict | Mapping):
            raise ConfigError(f"get_config returns a {type(found).__name__}; must be a ConfigDict or a dict")
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{name}: {located(error)}") from error
    config = found if isinstance(found, ConfigDict) else ConfigDict(found)
    with config.ignore_type(), config.unlocked():
        # Names come before the keys of what they pick, and a whole dict before what is in it.
        order = sorted(changes, key=lambda path: (path.count("."), not path.endswith(".name")))
        lines = [_change(config, path, changes[path], name) for path in order]
    found = plain(config)
    if changes:
        check(found)
    for line in filter(None, lines):
        print(line, file=sys.stderr)
    return found


def _change(config: ConfigDict, path: str, value: Any, name: str) -> str:
    """Sets the value at a dotted path; returns what there is to say of it."""
    *parents, last = path.split(".")
    node: Any = config
    rule: Any = Fields(Run)
    for parent in parents:
        rule = rule_of(_takes(rule, node, path).get(parent))
        node = node[parent] if isinstance(node, ConfigDict) and parent in node else None
    if not isinstance(node, ConfigDict):
        raise ConfigError(f"{path}: not in {name}; {nearest('.'.join(parents), _nodes(config))}")
    named = last == "name" and isinstance(rule, Part)
    takes = _takes(rule, {"name": value} if named else node, path)
    if isinstance(value, Written):
        value = str(value) if named or (last in takes and takes[last].annotation is str) else literal(value)
    dropped = [key for key in node if key not in takes and key != "name"] if named else []
    for key in dropped:
        del node[key]
    node[last] = value
    return f"config.{path} = {value}: goes without {', '.join(dropped)}, which it does not take" if dropped else ""


def _takes(rule: Any, node: Any, path: str) -> Mapping[str, inspect.Parameter]:
    """The keys of a part or of fields."""
    if isinstance(rule, Fields):
        return parameters(rule.function)[1]
    if isinstance(rule, Part) and isinstance(node, ConfigDict | Mapping) and "name" in node:
        takes = parameters(find(rule, node["name"], f"config.{path}")[0])[1]
        return takes | (parameters(rule.common)[1] if rule.common else {})
    return {}


def _nodes(config: ConfigDict, path: str = "") -> list[str]:
    """Dotted paths of everything in it that has keys."""
    below = {key: node for key, node in config.items() if isinstance(node, ConfigDict)}
    return [p for key, node in below.items() for p in (path + key, *_nodes(node, f"{path}{key}."))]
