"""labelfx: label-efficient representation learning in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ConfigError", "evaluate", "load", "recipe", "train"]

if TYPE_CHECKING:
    from labelfx.config import ConfigError as ConfigError
    from labelfx.config import recipe as recipe
    from labelfx.encoder import load as load
    from labelfx.evaluate import evaluate as evaluate
    from labelfx.train import train as train


def __getattr__(name: str) -> Any:
    # Late, so that `python -m labelfx.train` does not import its own module twice.
    if name in ("ConfigError", "recipe"):
        return getattr(importlib.import_module("labelfx.config"), name)
    if name == "load":
        return importlib.import_module("labelfx.encoder").load
    if name in __all__:
        return importlib.import_module(f"labelfx.{name}")
    raise AttributeError(f"module 'labelfx' has no attribute {name!r}")
