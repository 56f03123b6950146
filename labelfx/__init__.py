"""labelfx: label-efficient representation learning in JAX."""

import importlib as _importlib
import importlib.abc as _abc
import importlib.machinery as _machinery
import sys as _sys
import types as _types
import typing as _typing

if _typing.TYPE_CHECKING:
    from labelfx.benchmark import benchmark as benchmark
    from labelfx.compare import compare as compare
    from labelfx.condense import condense as condense
    from labelfx.config import ConfigError as ConfigError
    from labelfx.config import recipe as recipe
    from labelfx.data.pictures import read_images as read_images
    from labelfx.derive import derive as derive
    from labelfx.evaluate import evaluate as evaluate
    from labelfx.export import export as export
    from labelfx.features import features as features
    from labelfx.finished.encoder import load as load
    from labelfx.fit import fit as fit
    from labelfx.mine import mine as mine
    from labelfx.plan import plan as plan
    from labelfx.predict import predict as predict
    from labelfx.reinforce import reinforce as reinforce
    from labelfx.report import report as report
    from labelfx.suggest import suggest as suggest
    from labelfx.table import table as table
    from labelfx.train import train as train
    from labelfx.vote import vote as vote

__version__ = "0.1.0"
_COMMANDS = (
    "benchmark",
    "compare",
    "condense",
    "derive",
    "evaluate",
    "export",
    "features",
    "fit",
    "mine",
    "plan",
    "predict",
    "reinforce",
    "report",
    "suggest",
    "table",
    "train",
    "vote",
)
_OTHERS = {
    "ConfigError": "config",
    "load": "finished.encoder",
    "read_images": "data.pictures",
    "recipe": "config",
}
__all__ = sorted([*_COMMANDS, *_OTHERS])

# Modules that lie in a room now, under the names by which scripts of before import them.
_MOVED = {
    "checkpoint": "loop.checkpoint",
    "command": "config.command",
    "encoder": "finished.encoder",
    "mesh": "loop.mesh",
    "metrics": "loop.metrics",
    "optim": "loop.optim",
    "results": "loop.results",
    "run": "loop.run",
    "state": "loop.state",
    "sweep": "reports.sweep",
    "types": "config.annotations",
    "weights": "finished.weights",
}


class _Package(_types.ModuleType):
    """`labelfx.train` is the function of that name in the module of that name, which `python -m labelfx.train` runs. It
    is imported when it is first asked for."""

    def __getattr__(self, name: str) -> _typing.Any:
        if name not in __all__:
            raise AttributeError(f"module 'labelfx' has no attribute {name!r}")
        return getattr(_importlib.import_module(f"labelfx.{_OTHERS.get(name, name)}"), name)

    def __setattr__(self, name: str, value: _typing.Any) -> None:
        if name not in _COMMANDS or not isinstance(value, _types.ModuleType):  # which every import of one would set
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*__all__, "__version__"]


class _Moved(_abc.MetaPathFinder, _abc.Loader):
    """Finds the very module, not a second copy: those of `_MOVED`, and methods without the name of their family."""

    def find_spec(self, fullname: str, *_: _typing.Any) -> _machinery.ModuleSpec | None:
        name = fullname.rpartition(".")[2]
        target = _MOVED.get(name) if fullname == f"labelfx.{name}" else None
        if fullname == f"labelfx.methods.{name}":
            from labelfx.config.rooms import method_modules

            target = method_modules().get(name, "").removeprefix("labelfx.")
        return _machinery.ModuleSpec(fullname, self, origin=f"labelfx.{target}") if target else None

    def create_module(self, spec: _machinery.ModuleSpec) -> _types.ModuleType:
        self.own = (module := _importlib.import_module(str(spec.origin))).__spec__
        return module

    def exec_module(self, module: _types.ModuleType) -> None:
        module.__spec__ = self.own  # it has run already, and the import has just given it the spec of the other name


_sys.modules[__name__].__class__ = _Package
_sys.meta_path.append(_Moved())
