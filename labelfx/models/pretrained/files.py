"""Files of weights as their users have them: `model.safetensors` and a configuration beside it."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

NAME = "model.safetensors"
TOKENIZER = "tokenizer.json"
LICENCE = r"---\n(?:(?!---).*\n)*?license: *(\S+)"  # in the lines between the first two of dashes
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl")


class Tensors:
    """The tensors of a file by name; none is read before it is asked for.

    path, size: of the file, in bytes.
    shapes: name -> shape.
    metadata: what the file says of itself.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, path.stat().st_size
        try:
            with safe_open(path, framework="np") as file:
                self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
                self.metadata: dict[str, str] = file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"{path}: not a whole safetensors file ({error})") from None

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32, whatever the file has, bfloat16 too."""
        with safe_open(self.path, framework="np") as file:
            if file.get_slice(name).get_dtype() != "BF16":
                return file.get_tensor(name).astype(np.float32)
        with safe_open(self.path, framework="flax") as file:  # NumPy alone has no bfloat16
            return np.asarray(file.get_tensor(name).astype(jnp.float32))

    def sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_of(place: str | Path) -> Tensors:
    """Of a file, or of the folder that holds `model.safetensors`.

    Raises:
      FileNotFoundError, ValueError: there is none, or only a pickled one.
    """
    if not str(place):
        raise FileNotFoundError("must say which file or folder of weights")
    path = Path(place)
    if path.is_dir():
        pickled = [each for each in sorted(path.iterdir()) if each.suffix in PICKLED]
        if not (path / NAME).exists() and not pickled:
            raise FileNotFoundError(f"{path}: has no {NAME}")
        path = path / NAME if (path / NAME).exists() else pickled[0]
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix in PICKLED:
        raise ValueError(
            f'{path}: pickled files run code when they are read, and are not; where you trust it: python -c "import '
            f"torch, safetensors.torch as s; s.save_file(torch.load('{path.name}', weights_only=True), '{NAME}')\""
        )
    return Tensors(path)


def configuration(path: Path) -> dict[str, Any]:
    """`config.json` beside a file of weights, and under `preprocessor`, `tokenizer` and `modules` what Hugging Face has
    beside it, each module with the `config` in its folder, under `licence` what the head of a model card, `README.md`,
    states. Tables of token embeddings may have a tokenizer alone.

    Raises:
      FileNotFoundError, ValueError: there is none, or it is not what JSON has there.
    """
    folder = path.parent
    found = (
        {} if (folder / TOKENIZER).exists() and not (folder / "config.json").exists() else _json(folder / "config.json")
    )
    for key, name in {"preprocessor": "preprocessor_config.json", "tokenizer": TOKENIZER}.items():
        if (folder / name).exists():
            found[key] = _json(folder / name)
    if (folder / "modules.json").exists():
        found["modules"] = modules = _json(folder / "modules.json", list)
        for module in modules:
            if (own := folder / module["path"] / "config.json").exists():
                module["config"] = _json(own)
    card = folder / "README.md"
    if card.exists() and (stated := re.match(LICENCE, card.read_text("utf-8", "replace"))):
        found["licence"] = stated[1]
    return found


def _json(path: Path, kind: type = dict) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; it says what the weights beside it are of")
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, kind):
        raise ValueError(f"{path}: must hold a JSON {'object' if kind is dict else 'array'}")
    return found
