"""The whole configuration is checked here, before any data is touched, against the signatures of the builders.

Every dict with a `name` is a *part*: the name picks a function, whose keyword-only parameters are the keys the part
takes (`labelfx.types`). `Run` is the schema of the top level. An error is one line: the dotted path, what was found,
what is allowed, the nearest valid name.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import inspect
import json
import math
import os
import pkgutil
import re
import runpy
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from ml_collections import ConfigDict

from labelfx.types import Augment, Fields, Limit, NonNegativeInt, Part, PositiveInt


class ConfigError(ValueError):
    """A configuration that cannot run; the message is one line for its author."""


# What a run provides to builders, by the name of their positional parameters.
PROVIDED = {
    "methods": ("model", "tx", "steps", "num_classes", "num_examples", "backbone", "teacher"),
    "data.miners": ("model",),
    "data.augment": (),
    "models.backbones": ("vocab_size",),
    "models.heads": (),
    "evals": (
        "model projector variables seed num_classes train_images features test_images test_features test_labels "
        "test_logits test_predictions labelled_images labelled_features labelled_labels judgements"
    ).split(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the training images stay: with "device", on the devices, each of which holds a share of them."""

    placement: Literal["host", "device"] = "host"


DATA, LABELS = Part("data.sources", common=Placement), Part("data.labels", ("labels", "rng"))
BACKBONES, METHODS, OPTIMIZERS = Part("models.backbones"), Part("methods"), Part("optim", ("steps",))
MINERS, EVALS = Part("data.miners"), Part("evals")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Images per step over all devices; 0 leaves the stream out."""

    labelled: NonNegativeInt
    unlabelled: NonNegativeInt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The top level of a configuration. Fields without a default change results and must be given."""

    name: str  # the row's name in tables and reports
    seed: NonNegativeInt  # parameters, augmentation, every random choice of the method
    label_seed: NonNegativeInt  # which rows are labelled
    data_seed: NonNegativeInt  # the order of the batches
    data: Annotated[dict, DATA]
    labels: Annotated[dict, LABELS]
    model: Annotated[dict, BACKBONES]
    method: Annotated[dict, METHODS]
    optimizer: Annotated[dict, OPTIMIZERS]
    batch: Annotated[dict, Fields(Batch)]
    batches: Annotated[dict, MINERS]
    steps: PositiveInt
    evals: dict[str, dict]  # eval name -> its keywords
    backbone: str = ""  # for methods that start from one: a run's workdir, or "previous" for the phase before
    teacher: str = ""  # for methods that learn from a trained network: likewise
    refresh_every: NonNegativeInt = 0  # steps between refreshes of the table; 0: at the start of a phase only
    phases: tuple[dict, ...] = ()  # each phase replaces some of PHASE_FIELDS; () is one phase without changes
    # From here on nothing can change a result, so a run may be resumed with other values.
    devices: NonNegativeInt = 0  # of the mesh; 0: all
    fsdp: PositiveInt = 1  # devices that share one copy of the state; the batch is split over all of them
    steps_per_dispatch: PositiveInt = 1  # steps that the devices run on their own, without a word from Python
    workers: NonNegativeInt = 0  # processes that decode images, for sources that do not fit in memory
    log_every: PositiveInt = 50
    eval_every: NonNegativeInt = 0  # 0: at the end only
    save_every: PositiveInt = 500
    keep: PositiveInt = 3  # checkpoints kept


PHASE_FIELDS = ("method", "optimizer", "batch", "batches", "steps", "backbone", "teacher", "refresh_every")
TRAINED = ("backbone", "teacher")  # fields that name a run whose weights a phase takes
NEUTRAL = tuple(
    f"config.{field}"
    for field in (
        "name data.data_dir data.placement model.remat method.objective.block_size devices fsdp steps_per_dispatch "
        "workers log_every eval_every save_every keep"
    ).split()
)


@functools.cache
def functions(where: str) -> dict[str, Callable]:
    """Public functions that module or package `labelfx.<where>` defines, by name."""
    package = importlib.import_module(f"labelfx.{where}")
    modules = [package] + [
        importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(getattr(package, "__path__", ()))
    ]
    found: dict[str, Callable] = {}
    for module in modules:
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                found[name] = value
    return found


def parameters(function: Callable) -> tuple[list[str], dict[str, inspect.Parameter]]:
    """Names of the positional parameters, and the keyword-only ones."""
    found = inspect.signature(function).parameters.values()
    return (
        [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD],
        {p.name: p for p in found if p.kind is p.KEYWORD_ONLY},
    )


def names(part: Part) -> list[str]:
    """What a part's `name` may be."""
    if part.where == "methods":  # listed without importing them
        return sorted(info.name for info in pkgutil.iter_modules(importlib.import_module("labelfx.methods").__path__))
    return sorted(_fitting(part))


def function(part: Part, name: str) -> Callable:
    """The function that a valid name picks; a method is the function that bears its module's name."""
    if part.where == "methods":
        return getattr(importlib.import_module(f"labelfx.methods.{name}"), name)
    return _fitting(part)[name]


def _fitting(part: Part) -> dict[str, Callable]:
    """The functions whose positional parameters will be there when they are called."""
    found = functions(part.where)
    if part.positional:
        allowed = part.positional, part.positional + part.optional
        return {n: f for n, f in found.items() if tuple(parameters(f)[0]) in allowed}
    if part.where in PROVIDED:
        return {n: f for n, f in found.items() if set(parameters(f)[0]) <= set(PROVIDED[part.where])}
    return found


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`; did you mean ...?` where a valid name is near, and the valid names."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(str(word), allowed, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "allowed: " + (", ".join(allowed) or "none")


def _describe(annotation: Any) -> str:
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
        return f"{_describe(arguments[0])} or None"
    if origin is tuple:
        return f"a tuple, each {_describe(arguments[0])}"
    if origin is dict or annotation is dict:
        return "a dict"
    return {int: "an integer", float: "a number", bool: "True or False", str: "a string"}[annotation]


def _check(annotation: Any, value: Any, path: str) -> Any:
    """The value in its plain form (dicts, tuples, numbers, strings), or ConfigError."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated and isinstance(arguments[-1], Part):
        return _check_part(arguments[-1], value, path)
    if origin is Annotated and isinstance(arguments[-1], Fields):
        return _check_fields(arguments[-1].function, value, path)
    wrong = ConfigError(f"{path} = {value!r}: must be {_describe(annotation)}")
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
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} = {value!r}: must be a dict with {', '.join(takes) or 'no keys'}")
    for key in value:
        if key not in takes:
            hint = nearest(key, takes)
            raise ConfigError(f"{path}.{key}: unknown key{f' of {named}' if named else ''}; {hint}")
    checked = {}
    for key, parameter in takes.items():
        if key in value:
            checked[key] = _check(parameter.annotation, value[key], f"{path}.{key}")
        elif parameter.default is not parameter.empty:
            checked[key] = parameter.default
        else:
            raise ConfigError(f"{path}.{key}: missing; must be {_describe(parameter.annotation)}")
    return checked


def _check_part(part: Part, value: Any, path: str) -> dict:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} = {value!r}: must be a dict with a name; {nearest(str(value), names(part))}")
    if "name" not in value:
        found = ", ".join(map(str, value)) or "nothing"
        raise ConfigError(f"{path}.name: missing (found {found}); {nearest('', names(part))}")
    name = value["name"]
    builder, argument = _find(part, name, f"{path}.name")
    takes_argument = part.where == "data.sources" and parameters(builder)[0]
    if takes_argument and not argument:
        raise ConfigError(f"{path}.name = {name!r}: must say which {takes_argument[0]}, as in '{name}:...'")
    if argument and not takes_argument:
        raise ConfigError(f"{path}.name = {name!r}: takes nothing after the colon; use {name.partition(':')[0]!r}")
    keys = {k: v for k, v in value.items() if k != "name"}
    return {"name": name, **_check_fields(builder, keys, path, named=name, common=part.common)}


def _find(part: Part, name: Any, path: str) -> tuple[Callable, str]:
    """The function that `name` picks and, for `folder:PATH` and its like, what stands behind the colon."""
    head, _, argument = name.partition(":") if isinstance(name, str) else (name, "", "")
    if head not in names(part):
        raise ConfigError(f"{path} = {name!r}: no such name in labelfx.{part.where}; {nearest(head, names(part))}")
    return function(part, head), argument


def plain(config: Any) -> Any:
    """ConfigDicts and Runs as dicts, lists as tuples."""
    if isinstance(config, Run):
        config = dataclasses.asdict(config)
    if isinstance(config, ConfigDict):
        config = config.to_dict()  # resolves references and placeholders
    if isinstance(config, Mapping):
        return {k: plain(v) for k, v in config.items()}
    if isinstance(config, tuple | list):
        return tuple(plain(v) for v in config)
    return config


def check(config: Any) -> Run:
    """The configuration with the defaults of its knobs filled in, frozen.

    Args:
      config: a ConfigDict, nested dicts, or a Run.

    Raises:
      ConfigError: an unknown or missing key, a wrong type, an impossible value; one line with the dotted path.
    """
    config = plain(config)
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
        method = phase["method"]["name"]
        for field in TRAINED:
            wants = field in parameters(function(METHODS, method))[0]
            if wants and not phase[field]:
                raise ConfigError(f"{path}.{field}: missing; {method} takes one, a run's workdir or 'previous'")
            if phase[field] and not wants:
                raise ConfigError(f"{path}.{field} = {phase[field]!r}: {method} takes no {field}")
            if phase[field] == "previous" and index == 0:
                raise ConfigError(f"{path}.{field} = 'previous': the first phase has none before it; give a workdir")
        if not any(phase["batch"].values()):
            raise ConfigError(f"{path}.batch: both sizes are 0; give labelled or unlabelled images to each step")
    if checked["steps_per_dispatch"] > checked["log_every"]:
        found, most = checked["steps_per_dispatch"], checked["log_every"]
        raise ConfigError(f"config.steps_per_dispatch = {found}: must be at most config.log_every = {most}")
    return Run(**checked)


def phases(config: Any) -> list[dict]:
    """Each phase's fields, the top level's where the phase does not replace them."""
    config = plain(config)
    everywhere = {field: config[field] for field in PHASE_FIELDS}
    return [everywhere | changes for changes in config["phases"]] or [everywhere]


def augmentations(config: Mapping[str, Any]) -> Iterator[tuple[dict, str]]:
    """(a method's dict, the key of an augmentation in it), for the run's method and those of its phases."""
    for method in [config["method"], *(phase["method"] for phase in config["phases"] if "method" in phase)]:
        takes = parameters(function(METHODS, method["name"]))[1]
        yield from ((method, key) for key in takes if takes[key].annotation == Augment and key in method)


def one_line(part: Mapping[str, Any]) -> str:
    """A part's name and keys: `crop_flip (flip=True, padding=4)`."""
    keys = ", ".join(f"{key}={part[key]}" for key in sorted(part) if key != "name")
    return part["name"] + (f" ({keys})" if keys else "")


def build(part: Part, node: Mapping, **provided: Any) -> Any:
    """Makes a checked part: calls its builder with what the run provides, or binds the keywords of a function whose
    leading arguments come later (`Part.positional`)."""
    builder, argument = _find(part, node["name"], part.where)
    positional, takes = parameters(builder)
    keywords = {key: _build_value(takes[key].annotation, node[key]) for key in takes}
    if part.positional:
        return functools.partial(builder, **keywords)
    if argument:
        return builder(argument, **keywords)
    return builder(*(provided[name] for name in positional), **keywords)


def _build_value(annotation: Any, value: Any) -> Any:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated and isinstance(arguments[-1], Part):
        return build(arguments[-1], value)
    return value


def flatten(tree: Any, path: str = "config") -> dict[str, Any]:
    """Dotted path -> leaf."""
    if isinstance(tree, Mapping):
        return {k: v for key in sorted(tree) for k, v in flatten(tree[key], f"{path}.{key}").items()}
    if isinstance(tree, tuple | list) and any(isinstance(item, Mapping) for item in tree):
        return {k: v for i, item in enumerate(tree) for k, v in flatten(item, f"{path}[{i}]").items()}
    return {path: list(tree) if isinstance(tree, tuple) else tree}


def what_matters(config: Any) -> dict[str, Any]:
    """Dotted path -> value for everything that can change a result."""
    fields = flatten(plain(config)).items()
    return {path: value for path, value in fields if re.sub(r"phases\[\d+\]\.", "", path) not in NEUTRAL}


def config_hash(config: Any) -> str:
    """Twelve hex digits that the runs of one row of a table share: seeds and labels are left out of `what_matters`, and
    a backbone counts by the hash of the run that it comes from."""
    kept = {}
    for path, value in what_matters(config).items():
        if path in ("config.seed", "config.label_seed", "config.data_seed") or path.startswith("config.labels."):
            continue
        if path.rpartition(".")[2] in TRAINED and value not in ("", "previous"):
            value = config_hash(read_json(Path(value) / "config.json"))
        kept[path] = value
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def compare(config: Any, workdir: Path) -> None:
    """Compares with the configuration that a workdir holds, if it holds one.

    Raises:
      ConfigError: it is another; the differing paths are named.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    old: Any = read_json(path)
    with contextlib.suppress(ConfigError):
        old = check(old)  # fills in what it did not say, such as a field that is newer
    old, new = (what_matters(json.loads(json.dumps(plain(each)))) for each in (old, config))
    differing = sorted(p for p in old.keys() | new.keys() if old.get(p) != new.get(p))
    if differing:
        shown = ", ".join(f"{p} ({old.get(p)!r} there, {new.get(p)!r} now)" for p in differing)
        raise ConfigError(f"{workdir} holds a run of another configuration: {shown}; use another workdir")


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


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again, for labelfx."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "labelfx")


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


def locate(name: str) -> str:
    """The file of `--config`: a path as it is, or the name of a recipe that ships with the package."""
    if Path(name.partition(":")[0]).is_file():  # a workdir may be named like a recipe
        return name
    package = Path(__file__).parent
    folders = [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
    recipes = {path.relative_to(f).with_suffix("").as_posix(): path for f in folders for path in f.rglob("*.py")}
    key = name.removeprefix("configs/").removesuffix(".py")
    if key not in recipes:
        raise ConfigError(f"--config={name}: neither a file nor a recipe; {nearest(key, recipes)}")
    return str(recipes[key])


def recipe(name: str, changes: Mapping[str, Any] = types.MappingProxyType({})) -> dict[str, Any]:
    """The configuration of a recipe, by its name or file, with values replaced by dotted path: {"method.ema": 0.99}.

    Raises:
      ConfigError: there is no such recipe, or no such path to a value in it.
    """
    found = runpy.run_path(locate(name))
    if "get_config" not in found:
        raise ConfigError(f"--config={name}: has no function get_config")
    config = found["get_config"]()
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = config
        for parent in parents:
            node = node[parent] if isinstance(node, ConfigDict) and parent in node else None
        if not isinstance(node, ConfigDict):
            raise ConfigError(f"{path}: not in {name}; {nearest(path.removesuffix(f'.{last}'), _nodes(config))}")
        node[last] = value
    return plain(config)


def _nodes(config: ConfigDict, path: str = "") -> list[str]:
    """Dotted paths of everything in it that has keys."""
    below = {key: node for key, node in config.items() if isinstance(node, ConfigDict)}
    return [p for key, node in below.items() for p in (path + key, *_nodes(node, f"{path}{key}."))]
