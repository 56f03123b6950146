"""What the data are: how many rows, and some of each class."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labelfx import config as configs
from labelfx.data import Dataset, Split, labelled
from labelfx.data.batches import View
from labelfx.loop.run import load_config, load_data
from labelfx.reports.figures import Page
from labelfx.reports.runs import Found

EACH, FEW = 3, 10  # pictures of a class, and classes up to which there are as many
CLASSES = 30  # that are shown
LETTERS = 160  # of a text


class Loaded(NamedTuple):
    """A run's data, see `load_data`."""

    folder: Path
    config: configs.Run
    dataset: Dataset
    view: View


def load(page: Page, runs: Sequence[Found]) -> Loaded | None:
    """The data of the first run that has a configuration. None where they cannot be read; the page then says why."""
    folder = next((run.folder for run in runs if run.config), None)
    if folder is None:
        page.missing.append("no run here has a config.json, so its data and its network are not known")
        return None
    try:
        config = load_config(folder)
        return Loaded(folder, config, *load_data(config, folder))
    except (OSError, ValueError, KeyError) as error:  # a ConfigError is a ValueError
        page.missing.append(str(error))
        return None


def samples(page: Page, dataset: Dataset) -> None:
    """Writes how many rows there are and shows some of each class."""
    train, test = dataset.train, dataset.test or Split(dataset.train.inputs[:0], dataset.train.labels[:0])
    images, told = is_images(train.inputs), int(labelled(train.labels).sum())
    what = f"{'images' if images else 'texts' if 'tokenizer' in dataset.side else 'rows'}"
    of = " of {} x {} pixels".format(*train.inputs.shape[1:3]) if images else ""
    unknown = f" ({told:,} of them with a known label)" * (told < len(train.labels))
    said = f"{len(train.labels):,} training {what}{of}{unknown}, {len(test.labels):,} test {what}"
    names = dataset.class_names
    count = f", {len(names)} {'classes' if dataset.task == 'class' else 'labels'}" * bool(names)
    page.heading("The data")
    page.text(f"{said}{count}.")
    if dataset.task not in ("class", "several"):
        return
    each = [[_rows(split, c) for split in (train, test)] for c in range(len(names))]
    counts = [[f"{len(rows):,}" for rows in both] for both in each]
    some = [np.concatenate(both)[: EACH if len(names) <= FEW else 1] for both in each][:CLASSES]
    if images and dataset.task == "class":
        if len(names) > CLASSES:
            page.text(f"The first {CLASSES} of them:")
        texts = [f"{name}: {a} training, {b} test" for name, (a, b) in zip(names, counts, strict=True) if a + b != "00"]
        shown = [train.inputs[np.sort(rows)] for rows in some if len(rows)]
        page.pictures(shown, texts[:CLASSES], ["sample"] * len(shown))
        page.markdown.append("; ".join(texts[:CLASSES]))
        return
    lines = [["class" if dataset.task == "class" else "label", "training", "test"]]
    lines += [[name, *both] for name, both in zip(names, counts, strict=True)][:CLASSES]
    if "tokenizer" in dataset.side and dataset.task == "class":
        lines[0].append("an example")
        for line, rows in zip(lines[1:], some, strict=True):
            line.append(text_of(dataset, train.inputs[rows[0]]) if len(rows) else "")
    page.table(lines, fold=f"{len(lines) - 1} of them" if len(lines) > FEW + 1 else "")


def _rows(split: Split, c: int) -> np.ndarray:
    """Of a class, or with a label."""
    return np.flatnonzero(split.labels == c if split.labels.ndim == 1 else split.labels[:, c] == 1)


def is_images(inputs: Any) -> bool:
    return len(inputs.shape) == 4


def name_of(dataset: Dataset, split: Split, row: int) -> str:
    """The file that a test row is read from or its place, and of a text what it says."""
    file = getattr(split.inputs, "name", "train/{}".format)(row)
    name = f"test/{row}" if file == f"train/{row}" else file
    return f"{name}: {text_of(dataset, split.inputs[row])}" if "tokenizer" in dataset.side else name


def text_of(dataset: Dataset, ids: np.ndarray) -> str:
    """What a row [L] of ids says, or a pair [2, L]."""
    texts = map(dataset.side["tokenizer"].decode, ids.reshape(-1, ids.shape[-1]))
    return textwrap.shorten(" / ".join(texts), LETTERS, placeholder=" ...")
