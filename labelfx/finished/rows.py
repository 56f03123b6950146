"""Rows that want a label, and what a trained encoder makes of them: of a folder of images, a table of sentences, or the
training rows of the encoder's own run."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError, local
from labelfx.data import Split, known, row_names
from labelfx.data.files import LazyImages, images_of, stamp
from labelfx.data.sources.folders import UNLABELLED, folder
from labelfx.data.sources.own import TABLES, sentences
from labelfx.data.tokens import Tokenizer
from labelfx.evals.kept import kept_features
from labelfx.finished.encoder import Encoder
from labelfx.loop.run import load_config, load_data


class Rows(NamedTuple):
    """inputs: [N, ...], as the encoder takes them. labels: name -> label of what is labelled. Of pictures `folder` is
    where their files are, of sentences `texts` are they or, where those are not kept, `tokenizer` makes them of ids."""

    inputs: Any
    labels: Mapping[str, str]
    folder: Path | None = None
    texts: list[str] | None = None
    tokenizer: Tokenizer | None = None


def read_rows(data: str, encoder: Encoder) -> Rows:
    """The rows of `data`, as `labelfx.suggest` takes it.

    Raises:
      ConfigError: nothing of that kind is there, or the encoder does not take such rows.
    """
    if data == "train":
        return _of_run(encoder)
    root = local(data)
    try:
        if root.suffix in TABLES and root.is_file():
            if encoder.tokenizer is None:
                raise ConfigError(f"holds sentences; {encoder.workdir} is an encoder of other rows")
            texts, labels = sentences(root)
            if not texts:
                raise ConfigError("holds no rows")
            told = {name: label for name, label in zip(row_names(texts), labels, strict=True) if label}
            return Rows(encoder.tokenizer(texts), told, texts=texts)
        if not root.is_dir():
            raise ConfigError(f"neither a folder, nor a file {' '.join(TABLES)}, nor 'train'")
        if len(encoder.shape) != 3 or encoder.shape[2] not in (1, 3):
            raise ConfigError(f"files are grey or RGB images, {encoder.workdir} is an encoder of {encoder.shape}")
        height, width, channels = encoder.shape
        if not (root / UNLABELLED).is_dir():
            return Rows(images_of(root, (height, width, channels)), {}, root)
        if height != width:
            raise ConfigError(f"is read as squares, {encoder.workdir} is an encoder of {encoder.shape}")
        dataset = folder(str(root), image_size=height, channels=1 if channels == 1 else 3)
        return Rows(dataset.train.inputs, _told(dataset.train, dataset.class_names), root)
    except ValueError as error:
        raise ConfigError(f"--data={data}: {error}") from error


def encoded(rows: Rows, encoder: Encoder) -> np.ndarray:
    """Features float32 [N, F]: of the same rows, files and network from where `labelfx.evals.kept.kept_in` keeps them.

    Names of rows are right afterwards: what cannot be read is known then, and its row bears the name of the next.
    """
    network = encoder.model.key or configs.one_line(load_config(encoder.workdir).model)
    stamps = [stamp(rows.folder / name) for name in row_names(rows.inputs)] if rows.folder else []
    model = encoder.model._replace(key=json.dumps([network, stamps]))
    found = kept_features(model, encoder.variables, rows.inputs)
    if isinstance(rows.inputs, LazyImages):  # a row as another may be one that could not be read when it was kept
        times = Counter(each.tobytes() for each in found)
        for row, each in enumerate(found):
            if times[each.tobytes()] > 1:
                rows.inputs[row]
    return found


def _of_run(encoder: Encoder) -> Rows:
    config = load_config(encoder.workdir)
    dataset, view = load_data(config, encoder.workdir)
    if dataset.task not in ("class", "none"):
        raise ConfigError(f"--data=train: labels of that run are {dataset.task}; only classes can be filled in")
    said = view.split.labels.copy()
    if view.held_out is not None:
        said[view.validation] = view.held_out.labels
    source, _, path = config.data["name"].partition(":")
    files = source == "folder" and not config.data["merge"]
    told = _told(dataset.train._replace(labels=said), dataset.class_names)
    return Rows(dataset.train.inputs, told, Path(path) if files else None, tokenizer=encoder.tokenizer)


def _told(split: Split, classes: Sequence[str]) -> dict[str, str]:
    names = row_names(split.inputs)
    return {names[row]: classes[split.labels[row]] for row in np.flatnonzero(known(split.labels))}
