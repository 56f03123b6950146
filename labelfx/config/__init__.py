"""The whole configuration is checked here, before any data is touched, against the signatures of the builders.

Every dict with a `name` is a *part*: the name picks a function, whose keyword-only parameters are the keys the part
takes (`labelfx.config.annotations`). `Run` is the schema of the top level. An error is one line: the dotted path, what
was found, what is allowed, the nearest valid name.
"""

import ast
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import inspect
import json
import math
import os
import re
import runpy
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from ml_collections import ConfigDict

from labelfx.config.annotations import Augment, Fields, Limit, NonNegativeInt, Part, PositiveInt
from labelfx.config.errors import ConfigError, located, place
from labelfx.config.rooms import folders, functions, hashes, load, method_modules, outside_files, parameters, used_files

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
BACKBONES, METHODS, OPTIMIZERS = Part("models.backbones"), Part("methods"), Part("loop.optim", ("steps",))
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
OUTSIDE = "outside.json"  # in a workdir: the files of code outside of labelfx that its run uses, with their sha256
TRAINED = ("backbone", "teacher")  # fields that name a run whose weights a phase takes
NEUTRAL = tuple(
    f"config.{field}"
    for field in (
        "name data.data_dir data.placement model.remat method.objective.block_size devices fsdp steps_per_dispatch "
        "workers log_every eval_every save_every keep"
    ).split()
)


def names(part: Part) -> list[str]:
    """What a part's `name` may be."""
    return sorted(method_modules() if part.where == "methods" else _fitting(part))


def function(part: Part, name: str) -> Callable:
    """The function that a valid name picks; a method is the function that bears its module's name.

    Raises:
      ConfigError: a method's module has no such function, or it takes what no run provides.
    """
    if part.where != "methods":
        return _fitting(part)[name]
    module = load(method_modules()[name])
    builder = vars(module).get(name)
    if not inspect.isfunction(builder):
        have = [each for each, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise ConfigError(
            f"{module.__file__}: has no function {name!r}, which would build the method; {nearest(name, have)}"
        )
    for each in parameters(builder)[0]:
        if each not in PROVIDED["methods"]:
            hint = f"keys of a config stand after a *, and a run provides: {nearest(each, PROVIDED['methods'])}"
            raise ConfigError(f"{place(builder)}: {name}: no run provides {each!r}; {hint}")
    return builder


def _fitting(part: Part) -> dict[str, Callable]:
    """The functions whose positional parameters will be there when they are called."""
    found = functions(part.where)
    if part.positional:
        allowed = part.positional, part.positional + part.optional
        return {n: f for n, f in found.items() if tuple(parameters(f)[0]) in allowed}
    if part.where in PROVIDED:
        return {n: f for n, f in found.items() if set(parameters(f)[0]) <= set(PROVIDED[part.where])}
    return found


def guess(word: Any, allowed: Iterable[str]) -> str | None:
    """The valid name that was meant: one spelt alike, or one that `word` abbreviates, as lr does learning_rate."""
    word, allowed = str(word), sorted(allowed)
    short = [name for name in allowed if word in ("".join(part[:1] for part in name.split("_")), name[: len(word)])]
    close = difflib.get_close_matches(word, allowed, n=1) or (short if len(word) > 1 else [])
    return close[0] if close else None


def nearest(word: Any, allowed: Iterable[str]) -> str:
    """`did you mean ...?` where a valid name is near, and the valid names."""
    allowed = sorted(allowed)
    meant = guess(word, allowed)
    return (f"did you mean {meant!r}? " if meant else "") + "allowed: " + (", ".join(allowed) or "none")


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
        return _check_part(arguments[-1], value, path)
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
            raise ConfigError(f"{path}.{key}: missing; must be {describe(parameter.annotation)}")
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
    if head in names(part):
        return function(part, head), argument
    other, why = {} if part.where == "methods" else functions(part.where), ""
    if isinstance(head, str) and head in other:
        wanted = ", ".join(part.positional or PROVIDED[part.where]) or "nothing"
        why = f" that takes {wanted}: {place(other[head])} takes {', '.join(parameters(other[head])[0])}"
    raise ConfigError(f"{path} = {name!r}: no such name in labelfx.{part.where}{why}; {nearest(head, names(part))}")


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


def check(config: Any, workdir: Path | None = None) -> Run:
    """The configuration with the defaults of its knobs filled in, frozen.

    Args:
      config: a ConfigDict, nested dicts, or a Run.
      workdir: of its run, which knows of code outside of labelfx that a name may stand for.

    Raises:
      ConfigError: an unknown or missing key, a wrong type, an impossible value; one line with the dotted path.
    """
    try:
        return _check_run(plain(config))
    except ConfigError as error:
        then = _recorded(workdir) if workdir else {}
        gone = sorted(then.keys() - hashes(outside_files()).keys())
        if not gone:
            raise
        code = ", ".join(f"{name}, sha256 {then[name][:12]}" for name in gone)
        raise ConfigError(
            f"{str(error).partition(';')[0]}; the run was made with code outside of labelfx ({code}): "
            f"set LABELFX_PATH to the folder that holds {gone[0]}"
        ) from None


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


def outside(config: Run) -> dict[str, str]:
    """The files outside of labelfx that a checked configuration takes code from: a name such as `methods/mixup.py` ->
    sha256."""
    every = [dataclasses.asdict(config), *config.phases]
    used = [each for fields in every for each in _builders(parameters(Run)[1], fields)]
    return hashes(used_files(used + [function(EVALS, name) for name in config.evals]))


def _builders(takes: Mapping[str, inspect.Parameter], node: Mapping[str, Any]) -> Iterator[Callable]:
    """The functions that the parts of a checked node pick, and those of parts within."""
    for key, value in node.items():
        if isinstance(rule := _rule(takes.get(key)), Part):
            builder = _find(rule, value["name"], key)[0]
            yield builder
            yield from _builders(parameters(builder)[1], value)


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
      ConfigError: it is another; the differing paths are named. Or its code outside of labelfx is.
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
    if code := _differing(_recorded(workdir), outside(config)):
        raise ConfigError(f"{workdir} holds a run of other code: {code}; bring it back or use another workdir")


def changed_code(workdir: Path) -> str:
    """The code outside of labelfx that a run was made with and that is another now; empty where there is none."""
    if not (then := _recorded(workdir)):
        return ""
    now = hashes(outside_files())
    return _differing(then, {name: now.get(name, "") for name in then})


def _recorded(workdir: Path) -> dict[str, str]:
    path = workdir / OUTSIDE
    return {name: str(found) for name, found in read_json(path).items()} if path.exists() else {}


def _differing(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    short = {name: [each.get(name, "")[:12] or "none" for each in (then, now)] for name in names}
    return ", ".join(f"{name} (sha256 {old} there, {new} now)" for name, (old, new) in short.items())


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


def recipe(name: str, changes: Mapping[str, Any] = types.MappingProxyType({})) -> dict[str, Any]:
    """The configuration of a recipe, by its name or file, with values replaced by dotted path: {"method.ema": 0.99}.

    A part that is replaced by its name alone, {"data.name": "npz:FILE"}, keeps the keys that both functions take. A
    config file may return the result, with or without further changes.

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
        for path in sorted(changes, key=lambda path: (path.count("."), not path.endswith(".name"))):
            _change(config, path, changes[path], name)
    found = plain(config)
    if changes:
        check(found)
    return found


def _change(config: ConfigDict, path: str, value: Any, name: str) -> None:
    """Sets the value at a dotted path."""
    *parents, last = path.split(".")
    node: Any = config
    rule: Any = Fields(Run)
    for parent in parents:
        rule = _rule(_takes(rule, node, path).get(parent))
        node = node[parent] if isinstance(node, ConfigDict) and parent in node else None
    if not isinstance(node, ConfigDict):
        raise ConfigError(f"{path}: not in {name}; {nearest('.'.join(parents), _nodes(config))}")
    if last == "name" and isinstance(rule, Part):
        takes = _takes(rule, {"name": value}, path)
        for key in [key for key in node if key not in takes]:
            del node[key]
    elif isinstance(value, Written):
        found = _takes(rule, node, path).get(last)
        value = str(value) if found and found.annotation is str else literal(value)
    node[last] = value


def _takes(rule: Any, node: Any, path: str) -> Mapping[str, inspect.Parameter]:
    """The keys of a part or of fields."""
    if isinstance(rule, Fields):
        return parameters(rule.function)[1]
    if isinstance(rule, Part) and isinstance(node, ConfigDict | Mapping) and "name" in node:
        takes = parameters(_find(rule, node["name"], f"config.{path}")[0])[1]
        return takes | (parameters(rule.common)[1] if rule.common else {})
    return {}


def _rule(parameter: inspect.Parameter | None) -> Any:
    """The part or the fields that a key takes."""
    arguments = typing.get_args(parameter.annotation) if parameter else ()
    return arguments[-1] if arguments else None


def _nodes(config: ConfigDict, path: str = "") -> list[str]:
    """Dotted paths of everything in it that has keys."""
    below = {key: node for key, node in config.items() if isinstance(node, ConfigDict)}
    return [p for key, node in below.items() for p in (path + key, *_nodes(node, f"{path}{key}."))]
