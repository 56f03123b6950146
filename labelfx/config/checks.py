"""The whole configuration against the signatures of the builders, before any data is touched."""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from labelfx.config.annotations import Fields, Limit, Part
from labelfx.config.errors import ConfigError, place
from labelfx.config.files import read_json, recorded
from labelfx.config.rooms import functions, hashes, outside_files, parameters
from labelfx.config.schema import (
    BACKBONES,
    EVALS,
    METHODS,
    PHASE_FIELDS,
    PROVIDED,
    TRAINED,
    Run,
    flatten,
    function,
    guess,
    names,
    nearest,
    places,
    plain,
)


def _understood(annotation: Any) -> bool:
    """Whether an annotation says what a configuration may give."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return isinstance(arguments[-1], Part | Fields) or (
            isinstance(arguments[-1], Limit) and _understood(arguments[0])
        )
    if origin in (typing.Union, types.UnionType):
        return arguments[1:] == (type(None),) and _understood(arguments[0])
    if origin is tuple:
        return arguments[1:] == (...,) and _understood(arguments[0])
    return origin in (Literal, dict) or annotation in (dict, int, float, bool, str)


def describe(annotation: Any) -> str:
    """What an annotation lets a configuration give, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        rule = arguments[-1]  # the outermost of nested annotations
        if isinstance(rule, Limit):
            return rule.text
        if isinstance(rule, Part):
            return "a dict with a name, one of " + ", ".join(names(rule))
        return "a dict with " + ", ".join(parameters(rule.function)[1])
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return f"{describe(arguments[0])} or None"
    if origin is tuple:
        return f"a tuple, each {describe(arguments[0])}"
    if origin is dict or annotation is dict:
        return "a dict"
    return {int: "an integer", float: "a number", bool: "True or False", str: "a string"}[annotation]


def _check(annotation: Any, value: Any, path: str) -> Any:
    """The value in its plain form (dicts, tuples, numbers, strings), or ConfigError."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated and isinstance(arguments[-1], Part):
        return check_part(arguments[-1], value, path)
    if origin is Annotated and isinstance(arguments[-1], Fields):
        return _check_fields(arguments[-1].function, value, path)
    wrong = ConfigError(f"{path} = {value!r}: must be {describe(annotation)}")
    if origin is Annotated:
        base, rule = arguments[0], arguments[-1]
        try:
            value = _check(base, value, path)
        except ConfigError:
            raise wrong from None
        if not rule.holds(value):
            raise wrong
        return value
    if origin in (typing.Union, types.UnionType):
        try:  # the one union there is: X | None
            return None if value is None else _check(arguments[0], value, path)
        except ConfigError as error:
            raise wrong if str(error).startswith(f"{path} ") else error from None  # what is wrong inside says more
    if origin is Literal:
        if not any(type(value) is type(a) and value == a for a in arguments):
            raise wrong
        return value
    if origin is tuple:
        if arguments[0] is str and isinstance(value, str):
            value = (value,) if value else ()
        if not isinstance(value, tuple | list):
            raise wrong
        return tuple(_check(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict or annotation is dict:
        if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
            raise wrong
        return dict(value)
    if annotation is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise wrong
        return float(value)
    if type(value) is not annotation:
        raise wrong
    return value


def _check_fields(builder: Callable, value: Any, path: str, named: str = "", common: Callable | None = None) -> dict:
    takes = parameters(builder)[1] | (parameters(common)[1] if common else {})
    for key, parameter in takes.items():
        if not _understood(parameter.annotation):
            found = "no annotation" if parameter.annotation is parameter.empty else repr(parameter.annotation)
            hint = "must say what a config may give, as int, float, str, bool and labelfx.config.annotations do"
            raise ConfigError(f"{place(builder)}: {builder.__name__}: {key} has {found}; {hint}")
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} = {value!r}: must be a dict with {', '.join(takes) or 'no keys'}")
    for key in value:
        if key not in takes:
            hint = nearest(key, takes)
            known = flatten({each: below for each, below in value.items() if each in takes}, path)
            deeper = {each.rpartition(".")[2]: each for each in known}
            if guess(key, takes) is None and (meant := guess(key, deeper)):
                hint = f"did you mean {deeper[meant]}? {hint}"
            raise ConfigError(f"{path}.{key}: unknown key{f' of {named}' if named else ''}; {hint}")
    checked = {}
    for key, parameter in takes.items():
        if key in value:
            checked[key] = _check(parameter.annotation, value[key], f"{path}.{key}")
        elif parameter.default is not parameter.empty:
            checked[key] = parameter.default
        else:
            needed = [each for each in takes if takes[each].default is parameter.empty and each not in value]
            more = f" (and {', '.join(needed[1:])}, missing too)" if needed[1:] else ""
            raise ConfigError(f"{path}.{key}: missing; must be {describe(parameter.annotation)}{more}")
    return checked


def check_part(part: Part, value: Any, path: str) -> dict:
    """A part's dict in its plain form, or ConfigError; `path` is what its author calls it."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} = {value!r}: must be a dict with a name; {nearest(str(value), names(part))}")
    if "name" not in value:
        found = ", ".join(map(str, value)) or "nothing"
        raise ConfigError(f"{path}.name: missing (found {found}); {nearest('', names(part))}")
    name = value["name"]
    builder, argument = find(part, name, f"{path}.name")
    takes_argument = part.where == "data.sources" and parameters(builder)[0]
    if takes_argument and not argument:
        raise ConfigError(f"{path}.name = {name!r}: must say which {takes_argument[0]}, as in '{name}:...'")
    if argument and not takes_argument:
        raise ConfigError(f"{path}.name = {name!r}: takes nothing after the colon; use {name.partition(':')[0]!r}")
    keys = {k: v for k, v in value.items() if k != "name"}
    return {"name": name, **_check_fields(builder, keys, path, named=name, common=part.common)}


def find(part: Part, name: Any, path: str) -> tuple[Callable, str]:
    """The function that `name` picks and, for `folder:PATH` and its like, what stands behind the colon."""
    head, _, argument = name.partition(":") if isinstance(name, str) else (name, "", "")
    if head in names(part):
        return function(part, head), argument
    other, why = {} if part.where == "methods" else functions(part.where), ""
    if isinstance(head, str) and head in other:
        wanted = ", ".join(part.positional or PROVIDED[part.where]) or "nothing"
        why = f" that takes {wanted}: {place(other[head])} takes {', '.join(parameters(other[head])[0])}"
    raise ConfigError(f"{path} = {name!r}: no such name in labelfx.{part.where}{why}; {nearest(head, names(part))}")


def check(config: Any, workdir: Path | None = None) -> Run:
    """The configuration with the defaults of its knobs filled in, frozen.

    Args:
      config: a ConfigDict, nested dicts, or a Run.
      workdir: of its run, which knows of code outside of labelfx that a name may stand for.

    Raises:
      ConfigError: an unknown or missing key, a wrong type, an impossible value; one line with the dotted path.
    """
    try:
        return _described(_check_run(plain(config)), workdir)
    except ConfigError as error:
        then = recorded(workdir) if workdir else {}
        gone = sorted(then.keys() - hashes(outside_files()).keys())
        if not gone:
            raise
        code = ", ".join(f"{name}, sha256 {then[name][:12]}" for name in gone)
        raise ConfigError(
            f"{str(error).partition(';')[0]}; the run was made with code outside of labelfx ({code}): "
            f"set LABELFX_PATH to the folder that holds {gone[0]}"
        ) from None


def _described(config: Run, workdir: Path | None) -> Run:
    """With what the file of a pretrained model says of itself; a run that has begun does not open it again."""
    model = config.model
    if "description" not in parameters(function(BACKBONES, model["name"]))[1] or model["description"]:
        return config
    kept = workdir / "config.json" if workdir else None
    before: Any = read_json(kept) if kept is not None and kept.exists() else {}
    known = before.get("model", {}) if isinstance(before, dict) else {}
    if isinstance(known, dict) and known.get("file") == model["file"] and isinstance(known.get("description"), dict):
        found = known["description"]
    else:
        from labelfx.models.pretrained import described  # Flax takes long to import

        try:
            found = described(model["file"])
        except (OSError, ValueError) as error:
            raise ConfigError(f"config.model.file: {error}") from None
    return dataclasses.replace(config, model=model | {"description": plain(found)})


def _check_run(config: dict[str, Any]) -> Run:
    checked = _check_fields(Run, config, "config")
    for index, changes in enumerate(checked["phases"]):
        for key in changes:
            path = f"config.phases[{index}].{key}"
            if key not in PHASE_FIELDS:
                raise ConfigError(f"{path}: a phase cannot change it; {nearest(key, PHASE_FIELDS)}")
            changes[key] = _check(parameters(Run)[1][key].annotation, changes[key], path)
    for name, keywords in checked["evals"].items():
        path = f"config.evals.{name}"
        if name not in names(EVALS):
            raise ConfigError(f"{path}: no such eval; {nearest(name, names(EVALS))}")
        checked["evals"][name] = _check_fields(function(EVALS, name), keywords, path, named=name)
    for index, phase in enumerate(phases(checked)):
        path = f"config.phases[{index}]" if checked["phases"] else "config"
        takes = arguments_of(METHODS, phase["method"])
        for field, argument in TRAINED.items():
            who = takes.get(argument)
            if who and not phase[field] and not _optional(phase["method"]["name"], argument):
                raise ConfigError(f"{path}.{field}: missing; {who} takes one, a run's workdir or 'previous'")
            if phase[field] and not who:
                raise ConfigError(f"{path}.{field} = {phase[field]!r}: {phase['method']['name']} takes no {field}")
            if "previous" in places(phase[field]) and index == 0:
                raise ConfigError(f"{path}.{field} = 'previous': the first phase has none before it; give a workdir")
        if not any(phase["batch"].values()):
            raise ConfigError(f"{path}.batch: both sizes are 0; give labelled or unlabelled images to each step")
    if best := checked["keep_best"]:
        if best not in checked["evals"]:
            raise ConfigError(f"config.keep_best = {best!r}: {nearest(best, checked['evals'])}")
        for path, value in {
            "labels.validation": checked["labels"]["validation"],
            "eval_every": checked["eval_every"],
        }.items():
            if not value:
                raise ConfigError(f"config.{path} = 0: config.keep_best = {best!r} needs it above 0")
    if checked["steps_per_dispatch"] > checked["log_every"]:
        found, most = checked["steps_per_dispatch"], checked["log_every"]
        raise ConfigError(f"config.steps_per_dispatch = {found}: must be at most config.log_every = {most}")
    return Run(**checked)


def _optional(method: str, argument: str) -> bool:
    """Whether a method goes without what a run provides, by a default."""
    found = inspect.signature(function(METHODS, method)).parameters.get(argument)
    return found is not None and found.default is not found.empty


def arguments_of(part: Part, node: Mapping[str, Any]) -> dict[str, str]:
    """What a run must provide to a checked part and to those within it: name -> the first that takes it."""
    positional, takes = parameters(find(part, node["name"], part.where)[0])
    found = {} if part.positional else dict.fromkeys(positional, node["name"])
    for key, value in node.items():
        rule = rule_of(takes.get(key))
        if isinstance(rule, Part):
            for each in value if isinstance(value, tuple) else filter(None, (value,)):
                found = arguments_of(rule, each) | found
    return found


def rule_of(parameter: inspect.Parameter | None) -> Any:
    """The part or the fields that a key takes, or that each item of its tuple does."""
    annotation = parameter.annotation if parameter else None
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):  # X | None, tuple[X, ...]
        annotation = typing.get_args(annotation)[0]
    arguments = typing.get_args(annotation)
    return arguments[-1] if arguments else None


def phases(config: Any) -> list[dict]:
    """Each phase's fields, the top level's where the phase does not replace them."""
    config = plain(config)
    everywhere = {field: config[field] for field in PHASE_FIELDS}
    return [everywhere | changes for changes in config["phases"]] or [everywhere]
