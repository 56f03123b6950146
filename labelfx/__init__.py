"""labelfx: label-efficient representation learning in JAX."""

import importlib as _importlib
import sys as _sys
import types as _types
import typing as _typing

if _typing.TYPE_CHECKING:
    from labelfx.benchmark import benchmark as benchmark
    from labelfx.config import ConfigError as ConfigError
    from labelfx.config import recipe as recipe
    from labelfx.encoder import load as load
    from labelfx.evaluate import evaluate as evaluate
    from labelfx.export import export as export
    from labelfx.features import features as features
    from labelfx.mine import mine as mine
    from labelfx.plan import plan as plan
    from labelfx.report import report as report
    from labelfx.table import table as table
    from labelfx.train import train as train

__version__ = "0.1.0"
_COMMANDS = ("benchmark", "evaluate", "export", "features", "mine", "plan", "report", "table", "train")
_OTHERS = {"ConfigError": "config", "load": "encoder", "recipe": "config"}
__all__ = sorted([*_COMMANDS, *_OTHERS])


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


_sys.modules[__name__].__class__ = _Package
