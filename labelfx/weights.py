"""Model variables as safetensors: no pickle, readable without labelfx. Names are paths, `params/backbone/...`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file


def save(path: Path, variables: dict[str, Any]) -> None:
    """Writes nested dicts of arrays, all or nothing.

    Raises:
      OSError: it could not be written.
    """
    flat = {
        "/".join(key.key for key in keys): np.ascontiguousarray(leaf)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    try:
        save_file(flat, scratch)
    except SafetensorError as error:  # how a full disk shows
        raise OSError(f"{path}: not written ({error})") from error
    scratch.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Reads what `save` wrote, as NumPy arrays.

    Raises:
      FileNotFoundError, ValueError: one line that names the file.
    """
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}: that run has not finished this phase")
    try:
        flat = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from None
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree
