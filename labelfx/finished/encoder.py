"""The network that a finished run trained, as a function: `labelfx.load(workdir)`."""

import contextlib
import dataclasses
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from labelfx import models
from labelfx.config import ConfigError, local, place, read_json
from labelfx.data import Task
from labelfx.data.augment import to_float
from labelfx.data.pictures import blocks_of, is_image, pictures
from labelfx.data.tokens import Tokenizer
from labelfx.data.tokens import read as read_tokenizer
from labelfx.evals import features, head_outputs
from labelfx.evals.kept import at_once
from labelfx.loop.networks import build_head, build_model
from labelfx.loop.run import TOKENIZER, load_config, load_variables
from labelfx.models import Model
from labelfx.models.backbones import pretrained
from labelfx.models.pretrained import read
from labelfx.models.pretrained.files import NAME as WEIGHTS

MAX_LENGTH = 128  # tokens of a text, for an encoder that no run says it of


@dataclasses.dataclass(frozen=True, repr=False)
class Encoder:
    """A trained backbone: `encoder(images)` are features.

    model, variables: the backbone, and its variables as NumPy arrays.
    head: what the run trained on the features, with its variables; None where the method trains none.
    shape, dtype: of one row, (H, W, C) and "uint8", (F,) and "float32" of vectors, or (L,) and "int32" of ids.
    class_names: of the run's data, () of text.
    task: what its labels are (`labelfx.data.Dataset.task`).
    workdir: of the run.
    tokenizer: of a run on texts, else None.
    """

    model: Model
    variables: dict[str, Any]
    head: tuple[Model, dict[str, Any]] | None
    shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    task: str
    workdir: Path
    tokenizer: Tokenizer | None = None

    def __repr__(self) -> str:
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables["params"]))
        return f"<encoder of {self.workdir}: {self._rows}, {len(self.class_names)} classes, {count:,} parameters>"

    @property
    def _rows(self) -> str:
        return f"{self.dtype} [N, {', '.join(map(str, self.shape))}]"

    def __call__(self, rows: Any) -> np.ndarray:
        """Features, float32 [N, F], of what the run's rows are. They are those that evals see; one thing is N = 1.

        Of a run on images: a file or a folder (its images in the order of their names, see `labelfx.read_images`), a
        Pillow image, an array uint8 [H, W] or [H, W, C], or a list of files, Pillow images and arrays; an array uint8
        [N, H, W, C]. They may be of any size, grey or in colour: each is made what the run trained on, in the way of
        the source `folder`. Of a run on texts: a sentence or a list of them, or token ids int32 [N, L]. Of vectors:
        [F] or [N, F], numbers. Arrays of the run's own shape and dtype may be lazy (`labelfx.data.Split`).

        Raises:
          FileNotFoundError: no such file or folder.
          DataError, ValueError: a file cannot be read; rows of another shape or dtype than the run's; none at all.
        """
        return np.concatenate([features(self.model, self.variables, x, batch=_batch(x)) for x in self._blocks(rows)])

    def _blocks(self, given: Any) -> Iterator[Any]:
        """Rows as the network takes them, of pictures a few at a time."""
        single = isinstance(given, str | Path | Image.Image)
        if hasattr(given, "__array__") and not single:
            given = np.asarray(given)  # of JAX, PyTorch, pandas
            given = given.tolist() if given.dtype.kind in "UO" else given
        listed = [given] if single else given
        if self.tokenizer is not None and isinstance(listed, list | tuple) and all(isinstance(x, str) for x in listed):
            given = self.tokenizer(listed)
        elif self.dtype == "uint8" and len(self.shape) == 3 and self.shape[2] in (1, 3):
            if isinstance(given, str | Path) and (folder := local(given)).is_dir():
                yield from (images for _, images in blocks_of(folder, self.shape))
                return
            if isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.shape[1:] != self.shape:
                listed = [given] if is_image(given) else list(given) if given.ndim == 4 else given
            if isinstance(listed, list | tuple) and len(listed):
                yield from pictures(listed, self.shape)
                return
        elif self.dtype == "float32" and len(self.shape) == 1 and isinstance(given, np.ndarray | list | tuple):
            with contextlib.suppress(TypeError, ValueError):  # what is no number is refused below
                given = np.asarray(given, np.float32)
                given = given[None] if given.shape == self.shape else given
        shape, dtype = np.shape(given), getattr(given, "dtype", type(given).__name__)
        if dtype != self.dtype or shape[1:] != self.shape or not shape[0]:
            raise ValueError(f"rows are {dtype} {list(shape)}; this run's encoder takes {self._rows} with N > 0")
        yield given

    def predict(self, rows: Any) -> np.ndarray:
        """Probabilities of `class_names`, float32 [N, classes], for what `encoder` takes: of classes that exclude each
        other, or of several labels by themselves; of dense labels those of every pixel, [N, H, W, classes]. Of a
        regression the targets, float32 [N, targets], in their units.

        Raises:
          ValueError: as for the features, or the run trained no classifier.
        """
        if self.head is None:
            raise ValueError("the method of this run trains no classifier; fit one on the features")
        found = [head_outputs(self.model, self.variables, *self.head, x, batch=_batch(x)) for x in self._blocks(rows)]
        return np.asarray(self._activated(np.concatenate(found)))

    def outputs(self, images: jax.Array) -> dict[str, jax.Array]:
        """`features` and, where there is a classifier, `probabilities`: the pure function that `export` writes; of a
        regressor `predictions`."""
        rows = to_float(images)
        outputs = self.model.apply(self.variables, rows, train=False)[0].astype(jnp.float32)
        found = {"features": models.pooled(outputs, rows)}
        if self.head is None:
            return found
        name = "predictions" if self.task == "target" else "probabilities"
        head = models.with_sentences(self.model, self.variables, self.head[1])
        return found | {name: self._activated(self.head[0].apply(head, outputs, train=False)[0])}

    def _activated(self, logits):
        return {"several": jax.nn.sigmoid, "target": lambda x: x}.get(self.task, jax.nn.softmax)(logits)


def _batch(rows: Any) -> int:
    """How many rows a call takes: padded to a power of 2, few programs are compiled, and one image does not cost as
    much as 256."""
    return min(at_once(np.shape(rows)[1:]), 1 << (len(rows) - 1).bit_length())


def load(workdir: str | Path) -> Encoder:
    """The encoder of the run in `workdir`, as its last step left it. The run's data need not be there.

    Or that of a file of weights, or of the folder that holds `model.safetensors`, which others trained
    (`labelfx.models.pretrained`): images are of the size that it was trained on, texts are read up to 128 tokens.

    Raises:
      FileNotFoundError, ConfigError: no run is there, it has not finished, or its files are damaged; one line.
    """
    folder = place(workdir)
    if not (folder / "results.json").exists() and (folder.is_file() or (folder / WEIGHTS).exists()):
        return _from_elsewhere(folder)
    config, path = load_config(folder), folder / "results.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; that run has not finished")
    data: Any = read_json(path).get("data")
    try:
        shape, dtype, names = tuple(data["shape"]), data["dtype"], tuple(data["class_names"])
        task, outputs = data["task"], data["outputs"]
        right = {type(size) for size in shape} == {int} and all(isinstance(name, str) for name in names)
        if not right or task not in typing.get_args(Task) or type(outputs) is not int:
            raise TypeError
        row = jax.ShapeDtypeStruct((1, *shape), {"uint8": np.float32, "float32": np.float32, "int32": np.int32}[dtype])
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        how = "python -m labelfx.evaluate writes it again"
        raise ConfigError(f"{path}: does not say what the encoder takes; {how}") from error
    try:
        variables = load_variables(folder)
        model = build_model(config, variables=variables)
        targets = np.zeros((1, outputs)) if task == "target" else None  # their scale is among the variables
        parts = {"head": build_head(config, outputs, targets)} if "head" in variables["params"] else {}
        expected = _shapes(jax.eval_shape(models.stack(backbone=model, **parts).init, jax.random.key(0), row))
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever Flax has to say of rows that this network cannot take
        raise ConfigError(f"{workdir}: {str(error).splitlines()[0]}") from error
    read = {kind: {part: of[part] for part in of if part in ("backbone", "head")} for kind, of in variables.items()}
    read = {kind: of for kind, of in read.items() if of}  # some collections are of the method's other parts alone
    if _shapes(read) != expected:
        raise ConfigError(f"{workdir}: its weights are not of the network in config.json on rows of {list(shape)}")
    head = (parts["head"], models.part(variables, "head")) if parts else None
    tokenizer = _tokenizer(folder / TOKENIZER)
    return Encoder(model, models.backbone(variables), head, shape, dtype, names, task, folder, tokenizer)


def _from_elsewhere(place: Path) -> Encoder:
    try:
        found = read(place)
        said, tokenizer = found.description, None
        if said["takes"] == "text":
            length = min(MAX_LENGTH, said["architecture"].get("positions", MAX_LENGTH))
            folder = place.parent if place.is_file() else place
            tokenizer = read_tokenizer(folder, said["architecture"]["vocab_size"], length)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None
    print(f"{place}: {found.said}", file=sys.stderr)
    how: dict[str, Any] = {"file": str(place), "image_size": 0, "lora": None, "norm": "stored", "dtype": "float32"}
    model = pretrained(None, **how, frozen=True, description=said)
    if tokenizer is not None:
        return Encoder(model, found.weights(), None, (length,), "int32", (), "none", place, tokenizer)
    size = said["preprocessing"]["size"]
    return Encoder(model, found.weights(), None, (size, size, 3), "uint8", (), "none", place)


def _tokenizer(path: Path) -> Tokenizer | None:
    """Of a run on texts, but older ones kept none."""
    if not path.exists():
        return None
    tokenizer = Tokenizer(path.read_text("utf-8"))
    try:
        tokenizer(["a text"])
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return tokenizer


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)
