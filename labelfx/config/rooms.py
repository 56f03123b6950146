"""Where the functions are that a configuration names: in rooms, which are packages and modules of labelfx.

Code outside of labelfx lies in the same rooms. A folder of `LABELFX_PATH` holds files such as `methods/NAME.py`,
`objectives/NAME.py` or `data/augment/NAME.py`, which become modules of the room, `labelfx.methods.NAME`. An installed
package names itself by an entry point of the group `labelfx.rooms`, and its modules, `PACKAGE.methods.NAME`, keep their
names.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from labelfx.config.errors import PACKAGE, ConfigError, located, place

ROOMS = tuple(
    "methods objectives methods.targets.pseudo_labels methods.targets.soft_labels labels.rules labels.queries "
    "data.sources data.labels data.weak data.propensity data.augment data.mixing data.pairs data.transformations "
    "data.miners mining.rules models.backbones models.classifiers models.heads loop.optim evals derived "
    "condensed".split()
)


def folders() -> list[Path]:
    """Those of `LABELFX_PATH`."""
    return [Path(word).resolve() for word in os.environ.get("LABELFX_PATH", "").split(os.pathsep) if word]


def modules(where: str) -> dict[str, Path]:
    """Dotted name -> file of the modules of a room, those of its families (packages in it) too. Imports only packages.

    Raises:
      ConfigError: a folder is not laid out as labelfx is, or two files are one module.
    """
    _open(tuple(folders()))
    found: dict[str, Path] = {}
    for name in (f"labelfx.{where}", *(f"{package}.{where}" for package in _installed())):
        if name.startswith("labelfx.") or _exists(name):
            found |= _below(load(name))
    return found


def load(name: str) -> types.ModuleType:
    """Imports a module; ConfigError, with file and line, where its code fails."""
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(located(error)) from error


def method_modules() -> dict[str, str]:
    """Name of a method -> its module, which is not imported. Names are flat, whatever their families.

    Raises:
      ConfigError: two methods have one name.
    """
    found: dict[str, str] = {}
    every = modules("methods")
    for module, file in every.items():
        name = module.rpartition(".")[2]
        if name in found:
            raise ConfigError(f"{file}: {every[found[name]]} is a method of this name already; give it another")
        if file.name != "__init__.py" and not name.startswith("_"):
            found[name] = module
    return found


def functions(where: str) -> dict[str, Callable]:
    """Public functions that the modules of a room define, by name.

    Raises:
      ConfigError: two have one name.
    """
    return _functions(tuple(module for module in modules(where) if not module.rpartition(".")[2].startswith("_")))


@functools.cache
def _functions(names: tuple[str, ...]) -> dict[str, Callable]:
    found: dict[str, Callable] = {}
    for module in map(load, names):
        blanks = {f"blank_{name}" for name in vars(module)}  # shapes of a source, see `labelfx.data.sources`
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            if not inspect.isfunction(value) or value.__module__ != module.__name__ or name.startswith("_"):
                continue
            if name in blanks:
                continue
            if name in found:
                raise ConfigError(f"{place(value)}: {place(found[name])} is a {name!r} of this room already; rename it")
            found[name] = value
    return found


@functools.cache
def parameters(function: Callable) -> tuple[list[str], dict[str, inspect.Parameter]]:
    """Names of the positional parameters, and the keyword-only ones."""
    try:
        found = inspect.signature(function, eval_str=True).parameters.values()
    except NameError as error:  # of an annotation that is a string
        raise ConfigError(f"{place(function)}: {function.__name__}: {error}") from error
    return (
        [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD],
        {p.name: p for p in found if p.kind is p.KEYWORD_ONLY},
    )


def outside_files() -> dict[str, Path]:
    """The modules of rooms that are not of labelfx, dotted name -> file."""
    found = {name: file for where in ROOMS for name, file in modules(where).items()}
    return {name: file for name, file in found.items() if not file.is_relative_to(PACKAGE.resolve())}


def used_files(used: Iterable[Callable]) -> dict[str, Path]:
    """Those that functions come from, and those that these import from in turn."""
    files, found = outside_files(), {}
    left = [function.__module__ for function in used]
    while left:
        name = left.pop()
        if name in files and name not in found:
            found[name] = files[name]
            for value in vars(sys.modules[name]).values():
                of = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
                left += [of] if isinstance(of, str) else []
    return found


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """Of files of modules: a name such as `methods/mixup.py` -> sha256."""
    found = {}
    for name, file in sorted(files.items()):
        key = name.removeprefix("labelfx.").replace(".", "/") + file.suffix
        found[key] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


@functools.cache
def _open(paths: tuple[Path, ...]) -> None:
    """Lets rooms look into folders too."""
    for path in paths:
        inside = [where for where in ROOMS if (path / where.replace(".", "/")).is_dir()]
        if not inside and not (path / "configs").is_dir():
            known = ", ".join(where.replace(".", "/") for where in ROOMS)
            raise ConfigError(f"LABELFX_PATH: {path}: has no folder configs, {known}")
        for where in inside:
            room, below = load(f"labelfx.{where}"), str(path / where.replace(".", "/"))
            room.__path__ = [*(each for each in getattr(room, "__path__", ()) if each != below), below]


@functools.cache
def _installed() -> tuple[str, ...]:
    return tuple(sorted({point.value for point in importlib.metadata.entry_points(group="labelfx.rooms")}))


def _exists(name: str) -> bool:
    parent = name.rpartition(".")[0]
    if parent and not (_exists(parent) and hasattr(load(parent), "__path__")):
        return False
    return importlib.util.find_spec(name) is not None


def _below(package: types.ModuleType) -> dict[str, Path]:
    found = {package.__name__: Path(str(package.__file__)).resolve()}
    files: dict[str, Path] = {}
    for folder in (Path(path).resolve() for path in getattr(package, "__path__", ())):
        for info in pkgutil.iter_modules([str(folder)]):
            file = folder / info.name / "__init__.py" if info.ispkg else folder / f"{info.name}.py"
            if files.setdefault(info.name, file) != file:
                raise ConfigError(f"{file}: {files[info.name]} is there already; give it another name")
            name = f"{package.__name__}.{info.name}"
            if not any(f"{room}.".startswith(f"{name.removeprefix('labelfx.')}.") for room in ROOMS):
                found |= _below(load(name)) if info.ispkg else {name: file}
    return found
