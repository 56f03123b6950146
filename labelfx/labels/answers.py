"""The table that a person fills in: which rows to label, and the labels. `labelfx.suggest` writes it, and the label
view `file` reads it."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from labelfx.config import local, nearest, write_text
from labelfx.data import DataError, Dataset, row_names
from labelfx.data.sources.own import _csv


def answers(path: str | Path) -> dict[str, str]:
    """Name of a row -> its label, of the rows that have one in a CSV file with the columns `file` and `label`, such as
    a filled `suggested.csv`.

    Raises:
      FileNotFoundError, ValueError: there is no such file, it is no such table, or names a row twice with different
        labels. One line.
    """
    found: dict[str, str] = {}
    files, labels = _csv(local(path), ("file", "label")).values()
    for number, (name, label) in enumerate(zip(files, map(str.strip, labels), strict=True), 1):
        if label and found.setdefault(name, label) != label:
            raise DataError(
                f"{path}: row {number} says {label!r} of {name}, of which a row before says {found[name]!r}"
            )
    return found


def write_answers(path: Path, labels: Mapping[str, str], blank: Iterable[str], texts: Iterable[str] = ()) -> None:
    """A table that `answers` reads: the rows that have a label, then those that want one, with their texts if any."""
    lines: list[list[str]] = [["file", "label"], *map(list, labels.items()), *([name, ""] for name in blank)]
    if texts := list(texts):
        for line, text in zip(lines, ["text", *[""] * len(labels), *texts], strict=True):
            line.append(text)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    write_text(path, stream.getvalue())


def answered(dataset: Dataset, path: str | Path) -> Dataset:
    """The data set whose training rows have the labels of a table that `answers` reads, in the place of the source's.
    Where the source has no classes, they are those of the table, sorted.

    Raises:
      FileNotFoundError, ValueError: as for `answers`; labels are no classes, fewer than two, or one is not among those
        of the source; a row is not there. One line.
    """
    found, labels = answers(path), dataset.train.labels.copy()
    if dataset.task not in ("class", "none"):
        raise DataError(f"{path}: labels of these data are {dataset.task}; only classes can be filled in")
    classes = dataset.class_names or tuple(sorted({*found.values()}))
    if len(classes) < 2:
        raise DataError(f"{path}: holds {len(classes)} classes {list(classes)}; at least 2 are needed")
    places = {name: row for row, name in enumerate(row_names(dataset.train.inputs))}
    for name, label in found.items():
        if name not in places:
            raise DataError(
                f"{path}: names {name}, which is no training row; rows are called {next(iter(places))} and so on"
            )
        if label not in classes:
            raise DataError(f"{path}: says {label!r} of {name}; {nearest(label, classes)}")
        labels[places[name]] = classes.index(label)
    return dataset._replace(train=dataset.train._replace(labels=labels), class_names=classes)
