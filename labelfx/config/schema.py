"""What a configuration may hold: the fields of a run, what each kind of part may name, what builders are given."""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from labelfx.config.annotations import Fields, NonNegativeInt, Part, PositiveInt
from labelfx.config.errors import ConfigError, place
from labelfx.config.rooms import functions, load, method_modules, parameters

# What a run provides to builders, by the name of their positional parameters.
PROVIDED = {
    "methods": ("model", "classifier", "tx", "steps", "num_classes", "num_examples", "backbone", "teachers", "task"),
    "methods.targets.soft_labels": ("teachers", "num_classes", "num_examples", "classifier", "task"),
    "data.weak": ("label", "rng", "num_classes", "rows", "inputs", "columns"),
    "data.miners": ("model", "bag", "client", "rows"),
    "data.augment": (),
    "data.mixing": (),
    "models.backbones": ("vocab_size", "graph", "weights"),
    "models.classifiers": ("num_outputs", "class_names", "tokenizer"),
    "models.heads": (),
    "evals": (
        "model projector transformation variables seed workers num_classes train_inputs features test_inputs "
        "test_features test_labels test_logits test_predictions test_target test_bag test_bag_target head_kernel "
        "labelled_inputs labelled_features labelled_labels rows scored_rows judgements graph teacher_logits class_map"
    ).split(),
    "derived": ("runs", "rng"),
    "condensed": ("runs", "rng"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """placement: where the training rows stay: with "device", on the devices, each of which holds a share of them.
    merge: classes of the source that are one class here, in this order; those of none are left out."""

    placement: Literal["host", "device"] = "host"
    merge: tuple[tuple[NonNegativeInt, ...], ...] = ()


WEAK = Part("data.weak")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What is said of the rows that a label view chooses: the truth, or what `weak` makes of it. Of `validation` of
    them it is said only to choose by, such as with `keep_best`; no step sees those labels."""

    weak: Annotated[dict, WEAK] | None = None
    validation: NonNegativeInt = 0


DATA = Part("data.sources", common=Placement)
LABELS = Part("data.labels", ("labels", "rng"), optional=("names", "encode"), common=Told)
BACKBONES, METHODS, OPTIMIZERS = Part("models.backbones"), Part("methods"), Part("loop.optim", ("steps",))
CLASSIFIERS = Part("models.classifiers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How many labels a phase asks for at its beginning."""

    count: PositiveInt


QUERIES = Part("labels.queries", ("evidence", "told", "count", "rng"), common=Asking)
MINERS, EVALS = Part("data.miners"), Part("evals")
DERIVED, CONDENSED = Part("derived"), Part("condensed")


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
    steps: NonNegativeInt
    evals: dict[str, dict]  # eval name -> its keywords
    head: Annotated[dict, CLASSIFIERS] = dataclasses.field(
        default_factory=lambda: {"name": "linear"}
    )  # on the features
    backbone: str = ""  # for methods that start from one: a run's workdir, or "previous" for the phase before
    teacher: tuple[str, ...] = ()  # for what learns from trained networks: likewise, of one the place alone will do
    refresh_every: NonNegativeInt = 0  # steps between refreshes of the table; 0: at the start of a phase only
    ask: Annotated[dict, QUERIES] | None = None  # rows whose labels a phase buys, by the network of the phase before
    phases: tuple[dict, ...] = ()  # each phase replaces some of PHASE_FIELDS; () is one phase without changes
    keep_best: str = ""  # the eval by whose headline, every eval_every steps on validation rows, weights are chosen
    matmul_precision: Literal["default", "highest"] = "default"  # of products of float32; a CPU's are exact by either
    # From here on nothing can change a result, so a run may be resumed with other values.
    devices: NonNegativeInt = 0  # of the mesh; 0: all
    fsdp: PositiveInt = 1  # devices that share one copy of the state; the batch is split over all of them
    steps_per_dispatch: PositiveInt = 1  # steps that the devices run on their own, without a word from Python
    workers: NonNegativeInt = 0  # processes that make batches of images that are not in memory; files need none
    log_every: PositiveInt = 50
    eval_every: NonNegativeInt = 0  # 0: at the end only
    save_every: PositiveInt = 500
    keep: PositiveInt = 3  # checkpoints kept


PHASE_FIELDS = ("method", "optimizer", "batch", "batches", "steps", "backbone", "teacher", "refresh_every", "ask")
# Fields that name runs whose weights a phase takes, and what its method, or a part of it, then has as an argument.
TRAINED = {"backbone": "backbone", "teacher": "teachers"}
NEUTRAL = tuple(
    f"config.{field}"
    for field in (
        "name data.data_dir data.labels_dir data.placement model.file model.remat method.objective.block_size devices "
        "fsdp steps_per_dispatch workers log_every eval_every save_every keep"
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
        first = len(part.positional)
        names, more = {n: tuple(parameters(f)[0]) for n, f in found.items()}, {*part.optional, *part.bound}
        fits = {n for n, each in names.items() if each[:first] == part.positional and {*each[first:]} <= more}
        return {n: f for n, f in found.items() if n in fits}
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


def places(value: str | Iterable[str]) -> list[str]:
    """The runs that a field of `TRAINED` names, whether it holds one or several."""
    return [each for each in ([value] if isinstance(value, str) else value) if each]


def flatten(tree: Any, path: str = "config") -> dict[str, Any]:
    """Dotted path -> leaf."""
    if isinstance(tree, Mapping):
        return {k: v for key in sorted(tree) for k, v in flatten(tree[key], f"{path}.{key}").items()}
    if isinstance(tree, tuple | list) and any(isinstance(item, Mapping) for item in tree):
        return {k: v for i, item in enumerate(tree) for k, v in flatten(item, f"{path}[{i}]").items()}
    return {path: list(tree) if isinstance(tree, tuple) else tree}
