"""Model variables as safetensors: no pickle, readable without labelfx. Names are paths, `params/backbone/...`.

The format has no checksum; ours, over names, dtypes, shapes and bytes, is the `sha256` of its metadata.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from labelfx.config import make_folder, on_this_machine, replacing


def save(path: Path, variables: dict[str, Any]) -> None:
    """Writes nested dicts of arrays, all or nothing.

    Raises:
      OSError: it could not be written.
    """
    flat = _flat(variables)
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(serialize(flat, {"sha256": _sha256(flat)}))


def load(path: Path) -> dict[str, Any]:
    """Reads what `save` wrote, as NumPy arrays. Files of before there was a checksum have no metadata.

    Raises:
      FileNotFoundError, ValueError: one line that names the file.
    """
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}: that run has not finished this phase")
    try:
        with on_this_machine(path) as here, safe_open(here, framework="np") as file:
            kept = file.metadata()
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError) as error:  # also of dtypes that NumPy has not
        raise ValueError(f"{path}: not a whole safetensors file ({error})") from None
    if kept is not None and kept.get("sha256") != _sha256(flat):
        raise ValueError(f"{path}: not the arrays that were saved")
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


def sha256(variables: dict[str, Any]) -> str:
    """The checksum that a file of these variables has."""
    return _sha256(_flat(variables))


def _flat(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        "/".join(key.key for key in keys): np.asarray(leaf, order="C")
        for keys, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables))
    }


def _sha256(flat: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, leaf in sorted(flat.items()):
        digest.update(f"{name} {leaf.dtype.name} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
