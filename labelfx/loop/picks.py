"""What a run reads where its user says only where the data are: a folder, a table, a name, arrays."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError, local, make_folder, nearest, write_text
from labelfx.data import DataError, Dataset, Split
from labelfx.data.decode import image_files, size_of
from labelfx.data.sources.own import TABLES
from labelfx.loop.mesh import device_memory, make_mesh

# Pixels a side, at most: what a network can be trained on in hours, by the machine. "large" is what is usual for
# photographs.
LARGEST = {"cpu": 32, "cpu, from a file": 96, "small": 128, "large": 224}
LARGE = 16e9  # bytes of a device
LOOKED_AT = 100  # images of a folder, by which its size is told


def source_of(
    data: Any, out: Path, backbone: str, said: Mapping[str, Any], changes: dict[str, Any], *, trained: bool
) -> tuple[dict[str, Any], Dataset | None, list[str]]:
    """`config.data` of what a user calls the data, arrays that are in memory, and lines that say what was picked.

    Args:
      data: a folder of images; a `.csv`, `.jsonl` or `.parquet` file with the columns `text` and `label`; a `.npz`
        file or a source's name, perhaps with what stands behind its colon (`./NAME` is a folder); a `config.data`; or
        (X, y), of which X is images uint8 [N, H, W, C], vectors [N, F] or N strings, and y as `labels_of` takes it.
      out: of the run; strings are written to `out/sentences.jsonl`, from where its evals read them again.
      backbone, said: a pretrained encoder, and what its file says of itself.
      changes: dotted path -> value, of which those of `data` are taken out and made.
      trained: whether steps train the network on images; where none does, each goes through it once.

    Raises:
      ConfigError: nothing of that kind is there.
    """
    why, dataset = [], None
    if isinstance(data, Mapping):
        found = dict(data)
    elif isinstance(data, tuple):
        x, y = data
        found, dataset = _of_arrays(x, y, out)
    else:
        kind, _, behind = _named(str(data)).partition(":")
        if kind == "folder":
            found, line = _of_folder(local(behind), said, trained)
            why = [line]
        elif f".{kind}" in TABLES:
            found = configs.recipe("own_sentences")["data"] | {"name": f"{kind}:{behind}"}
        else:
            found = {"name": f"{kind}:{behind}" if behind else kind}
    if said.get("takes") == "text":
        found |= {"tokenizer": backbone, "vocab_size": said["architecture"]["vocab_size"]}
    given = {path: changes.pop(path) for path in list(changes) if path.startswith("data.")}
    found |= {path.removeprefix("data."): value for path, value in given.items()}
    return found, dataset, [] if "data.image_size" in given else why


def _named(data: str) -> str:
    """The source of a place, `folder:PATH`, or of a name."""
    kind, known = data.partition(":")[0], configs.names(configs.DATA)
    if kind in known:
        return data
    root = local(data)
    if root.is_dir():
        return f"folder:{data}"
    if root.is_file() and root.suffix in (*TABLES, ".npz"):
        return f"{root.suffix[1:]}:{data}"
    kinds = f"a folder, nor a file {' '.join(TABLES)} .npz, nor a data set's name"
    raise ConfigError(f"data = {data!r}: neither {kinds}; {nearest(kind, known)}")


def labels_of(y: Any) -> tuple[np.ndarray, list[Any]]:
    """Labels as a `Split` has them, and the classes that they are of, sorted.

    y: N classes, of any one type, where -1, None, NaN and "" are unknown: int32 [N]. N numbers, not all of which are
      whole, are targets, NaN unknown: float32 [N]. [N, C] of 1, 0 and -1 are several labels: int8.

    Raises:
      ConfigError: it is none of these, or of less than two classes.
    """
    found = np.asarray(y)
    if found.ndim == 2 and found.dtype.kind in "iub" and np.isin(found, (-1, 0, 1)).all():
        return found.astype(np.int8), list(range(found.shape[1]))
    if found.ndim != 1:
        raise ConfigError(f"y is {found.dtype} {list(found.shape)}; must be [N], or [N, C] of 1, 0 and -1")
    if found.dtype.kind == "f" and not np.all((found == np.floor(found)) | np.isnan(found)):
        return found.astype(np.float32), []
    values = y.tolist() if hasattr(y, "tolist") else list(y)  # which NumPy would make one type
    known = [value is not None and value == value and value not in (-1, "") for value in values]
    try:
        classes = sorted({value for value, told in zip(values, known, strict=True) if told})
    except TypeError:
        raise ConfigError("y: classes must be of one type, so that they have an order") from None
    if len(classes) < 2:
        raise ConfigError(f"y: {len(classes)} class; at least 2 are needed (-1, None, NaN and '' are unknown)")
    number = {value: place for place, value in enumerate(classes)}
    told = [number[value] if there else -1 for value, there in zip(values, known, strict=True)]
    return np.array(told, np.int32), classes


def _of_arrays(x: Any, y: Any, out: Path) -> tuple[dict[str, Any], Dataset | None]:
    x, (labels, classes) = np.asarray(x), labels_of(y)
    if len(x) != len(labels):
        raise ConfigError(f"X has {len(x)} rows, y {len(labels)}")
    if x.dtype.kind in "UO" and x.ndim == 1 and all(isinstance(each, str) for each in x):
        if labels.dtype != np.int32:
            raise ConfigError("y: of sentences in memory labels must be classes; others are read from a table")
        names = ["" if label < 0 else str(classes[label]) for label in labels]
        lines = [json.dumps({"text": text, "label": name}) for text, name in zip(x.tolist(), names, strict=True)]
        make_folder(out)
        write_text(path := out / "sentences.jsonl", "\n".join(lines) + "\n")
        table = {"name": f"jsonl:{path.absolute()}", "test": ""}
        return configs.recipe("own_sentences")["data"] | table, None
    x = x.astype(np.float32) if x.dtype.kind in "fiu" and x.ndim == 2 else x
    return {"name": "arrays"}, Dataset(Split(x, labels), None, tuple(map(str, classes)))


def _of_folder(root: Path, said: Mapping[str, Any], trained: bool) -> tuple[dict[str, Any], str]:
    """Images of one size, by what they are and by what the machine can do, and a line that says so."""
    if not root.is_dir():
        raise ConfigError(f"data = {str(root)!r}: no such folder")
    side, on_a_cpu = _shorter_side(root), jax.default_backend() == "cpu"
    if said.get("takes") == "images" and not (trained and on_a_cpu):
        size, why = said["preprocessing"]["size"], "as the encoder was trained on"
    elif on_a_cpu:
        most = LARGEST["cpu, from a file"] if said else LARGEST["cpu"]
        size, why = min(side, most), "as this machine has no accelerator"
    else:
        large = device_memory(make_mesh(0, 1)) >= LARGE
        size, why = min(side, LARGEST["large" if large else "small"]), "by the images and the device's memory"
    size = max(size // 8 * 8, 8)
    data = {"name": f"folder:{root}", "image_size": size, "channels": 3}
    return data, f"images of {size} pixels a side, {why} (half of yours have {side} or more)"


def _shorter_side(root: Path) -> int:
    """The median over some images of a folder; that of photographs where no header can be read."""
    names, sides = image_files(root)[0], []
    for row in np.unique(np.linspace(0, max(len(names) - 1, 0), min(LOOKED_AT, len(names))).astype(int)):
        with contextlib.suppress(DataError):  # the source names it
            sides.append(min(size_of(root / names[row])))
    return int(np.median(sides)) if sides else LARGEST["large"]


def network_of(size: int) -> dict[str, Any] | None:
    """The network for images of `size` pixels a side on this machine, where it is not a recipe's own small one."""
    if jax.default_backend() == "cpu":
        return None
    stem = "imagenet" if size >= 96 else "cifar"
    return {"name": "resnet18", "stem": stem, "width": 64, "dtype": "bfloat16"}


def fitting(batch: Mapping[str, int], count: int) -> dict[str, int]:
    """Sizes of a batch of no more rows than the `count` that there are, which all devices share."""
    devices = jax.device_count()
    smaller = {stream: count // devices * devices or count for stream, size in batch.items() if size > count}
    return {**batch, **smaller}
