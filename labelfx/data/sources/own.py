"""One's own sentences or measurements, from a table: CSV, JSON lines or Parquet, its columns named in the config."""

import csv as csv_format
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from labelfx.config import local
from labelfx.config.annotations import Limit, NonNegativeInt
from labelfx.data import DataError, Dataset, Split, known
from labelfx.data.sources.text import _read
from labelfx.data.tokens import tokenizer_for

LARGEST = float(np.finfo(np.float32).max)
Table = dict[str, list[Any]]
Names = Annotated[tuple[str, ...], Limit("a tuple of different names", lambda v: len({*v}) == len(v))]
Inputs = Annotated[
    tuple[str, ...], Limit("a tuple of different names, at least one", lambda v: len({*v}) == len(v) > 0)
]
Kind = Literal["class", "several", "target"]
TestRows = Annotated[
    str,
    Limit(
        "'' for none, 'COLUMN=VALUE' or a share such as '20%'",
        lambda v: not v or "=" in v or bool(re.fullmatch(r"[1-9]\d?%", v)),
    ),
]


def csv(
    path: str,
    *,
    inputs: Inputs,
    vocab_size: NonNegativeInt,
    max_length: NonNegativeInt,
    labels: Names,
    task: Kind,
    test: TestRows,
    test_seed: NonNegativeInt,
    tokenizer: str = "",
) -> Dataset:
    """A CSV file in UTF-8 whose first line names its columns, with commas and, where needed, double quotes.

    inputs: columns of numbers, which together are a row float32 [F]; or one column of texts, where `vocab_size` and
      `max_length` are not 0: token ids int32 [max_length], of pieces of words that are learnt from the training texts
      or, with `tokenizer`, are those of a text encoder (`labelfx.data.sources.text`).
    labels, task: one column of names of classes ("class"); columns of 0 and 1, a label each ("several"); columns of
      numbers ("target"); or none. What is empty is unknown.
    test: which rows are for testing only: 'COLUMN=VALUE' those with that value, '20%' a fifth of those whose labels are
      all known, drawn by `test_seed`; rows of equal inputs are drawn together, so that none is on both sides.

    Raises:
      ValueError: a column is missing, a value is none of what it may be, or a test row is without a label.
    """
    return _dataset(path, _csv, inputs, vocab_size, max_length, labels, task, test, test_seed, tokenizer)


def jsonl(
    path: str,
    *,
    inputs: Inputs,
    vocab_size: NonNegativeInt,
    max_length: NonNegativeInt,
    labels: Names,
    task: Kind,
    test: TestRows,
    test_seed: NonNegativeInt,
    tokenizer: str = "",
) -> Dataset:
    """JSON lines: an object a line, of texts, numbers, true, false and null. Everything else is as for `csv`."""
    return _dataset(path, _jsonl, inputs, vocab_size, max_length, labels, task, test, test_seed, tokenizer)


def parquet(
    path: str,
    *,
    inputs: Inputs,
    vocab_size: NonNegativeInt,
    max_length: NonNegativeInt,
    labels: Names,
    task: Kind,
    test: TestRows,
    test_seed: NonNegativeInt,
    tokenizer: str = "",
) -> Dataset:
    """A Parquet file of plain columns, read by pyarrow (`pip install 'labelfx[export]'`). Everything else is as for
    `csv`."""
    return _dataset(path, _parquet, inputs, vocab_size, max_length, labels, task, test, test_seed, tokenizer)


def _dataset(
    where: str,
    read: Callable[[Path, Sequence[str]], Table],
    inputs: Sequence[str],
    vocab_size: int,
    max_length: int,
    labels: Sequence[str],
    task: Kind,
    test: str,
    test_seed: int,
    tokenizer: str,
) -> Dataset:
    if bool(vocab_size) != bool(max_length):
        raise ValueError(f"vocab_size = {vocab_size}, max_length = {max_length}: both are 0, for numbers, or neither")
    if vocab_size and len(inputs) > 1:
        raise ValueError(f"inputs = {tuple(inputs)}: must be one column of texts, or vocab_size = max_length = 0")
    if tokenizer and not vocab_size:
        raise ValueError(f"tokenizer = {tokenizer!r}: needs vocab_size and max_length; without texts it must be ''")
    if labels and task == "class" and len(labels) > 1:
        raise ValueError(f"labels = {tuple(labels)}: a class is in one column; task must be 'several' or 'target'")
    path = local(where)
    if not path.is_file():
        raise FileNotFoundError(f"{path.absolute()}: no such file")
    column, _, value = test.partition("=") if "=" in test else ("", "", "")
    table = read(path, list(dict.fromkeys([*inputs, *labels, *([column] if column else [])])))
    count = len(table[inputs[0]])
    if not count:
        raise DataError(f"{path}: holds no rows")
    y, names = _labels(path, table, labels, task, count)
    partly = ~known(y).reshape(count, -1).all(1)
    if column:
        is_test = np.array([_text(each) == value for each in table[column]])
        if not is_test.any():
            raise ValueError(f"{path}: no row has {value!r} in {column!r}; there are {_some(table[column])}")
    else:
        share = int(test[:-1]) / 100 if test else 0.0
        is_test = _drawn([table[name] for name in inputs], ~partly, share, test_seed)
        if test and not is_test.any():
            raise ValueError(f"test = {test!r}: no row of {path} whose labels are known is left for it")
    if is_test.all():
        raise ValueError(f"test = {test!r}: leaves {path} no training row")
    if labels and (is_test & partly).any():
        raise DataError(f"{path}: row {int(np.argmax(is_test & partly)) + 1} is for testing and has an empty label")
    side: dict[str, Any] = {}
    if vocab_size:
        texts = [_text(value) for value in table[inputs[0]]]
        known_texts = [text for text, apart in zip(texts, is_test, strict=True) if not apart]
        encode = tokenizer_for(known_texts, tokenizer, vocab_size, max_length)
        x, side = encode(texts), {"tokenizer": encode}
    else:
        x = np.stack([_numbers(path, name, table[name], empty=False) for name in inputs], 1)
    train, apart = (Split(x[rows], y[rows]) for rows in (~is_test, is_test))
    return Dataset(train, apart if test else None, names, side)


def _labels(
    path: Path, table: Table, labels: Sequence[str], task: Kind, count: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """What is known of every row, and the names of classes."""
    if not labels:
        return np.full(count, -1, np.int32), ()
    if task == "class":
        values = [_text(value) for value in table[labels[0]]]
        names = sorted({*values} - {""}, key=lambda name: (len(name), name) if name.isdecimal() else (0, name))
        if len(names) < 2:
            raise DataError(f"{path}: column {labels[0]!r} holds {len(names)} classes {names}; at least 2 are needed")
        number = {name: i for i, name in enumerate(names)} | {"": -1}
        return np.array([number[value] for value in values], np.int32), tuple(names)
    y = np.stack([_numbers(path, name, table[name], empty=True) for name in labels], 1)
    if task == "target":
        return (y, tuple(labels)) if len(labels) > 1 else (y[:, 0], ())
    wrong = ~(np.isnan(y) | (y == 0) | (y == 1))
    if wrong.any():
        row, label = np.argwhere(wrong)[0].tolist()
        raise DataError(f"{path}: row {row + 1} has {y[row, label]:g} in {labels[label]!r}; allowed 0, 1 and empty")
    return np.where(np.isnan(y), -1, y).astype(np.int8), tuple(labels)


def _drawn(inputs: list[list[Any]], allowed: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the rows that are allowed, those of equal inputs together: bool [N]."""
    first: dict[tuple, int] = {}
    group = np.array([first.setdefault(row, len(first)) for row in zip(*inputs, strict=True)])
    sizes, most = np.bincount(group), share * allowed.sum() + 1e-9
    fits = (np.bincount(group, ~allowed) == 0) & (sizes <= most)  # none of its rows may not be drawn
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[fits[order]]
    return np.isin(group, order[np.cumsum(sizes[order]) <= most])


def _numbers(path: Path, name: str, values: Sequence[Any], *, empty: bool) -> np.ndarray:
    """float32 [N], NaN where a value may be empty and is."""
    found = np.empty(len(values), np.float32)
    for row, value in enumerate(values):
        nothing = value is None or value == ""
        try:
            number = math.nan if nothing else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.inf
        if not (abs(number) <= LARGEST or empty and nothing):
            allowed = "a finite number" + (" or nothing" if empty else "")
            raise DataError(f"{path}: row {row + 1} has {_short(value)} in {name!r}; must be {allowed}")
        found[row] = number
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _some(values: Sequence[Any]) -> str:
    found = sorted({_text(value) for value in values})
    return ", ".join(map(_short, found[:10])) + (", ..." if len(found) > 10 else "")


def _chosen(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"{path}: no column {missing[0]!r}; there are {_some(names)}")


def _csv(path: Path, wanted: Sequence[str]) -> Table:
    text = _read(path, "utf-8-sig")
    rows = csv_format.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(rows, [])
        if len(set(header)) < len(header) or not header:
            raise DataError(f"{path}: the first line must name the columns, each once; it is {_short(header)}")
        _chosen(path, header, wanted)
        places = [header.index(name) for name in wanted]
        columns: list[list[str]] = [[] for _ in wanted]
        for row in rows:
            if len(row) == 0:
                continue  # an empty line
            if len(row) != len(header):
                raise DataError(f"{path}: line {rows.line_num} has {len(row)} values; must be {len(header)}")
            for column, place in zip(columns, places, strict=True):
                column.append(row[place])
    except csv_format.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: {error}") from error
    return dict(zip(wanted, columns, strict=True))


def _jsonl(path: Path, wanted: Sequence[str]) -> Table:
    columns: Table = {name: [] for name in wanted}
    names: set[str] = set()
    for number, line in enumerate(_read(path, "utf-8-sig").split("\n")):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: line {number + 1} is no JSON ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number + 1} is {_short(row)}; must be an object")
        names |= row.keys()
        for name in wanted:
            value = row.get(name)
            if isinstance(value, dict | list):
                raise DataError(
                    f"{path}: line {number + 1} has {_short(value)} in {name!r}; must be a text or a number"
                )
            columns[name].append(value)
    if names:
        _chosen(path, sorted(names), wanted)
    return columns


def _parquet(path: Path, wanted: Sequence[str]) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ValueError(f"Parquet needs pyarrow ({error}); pip install 'labelfx[export]'") from error
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            _chosen(path, file.schema_arrow.names, wanted)
            found = file.read(columns=list(wanted))
            columns = {name: found.column(name).to_pylist() for name in wanted}
    except (pyarrow.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from error
    for name, values in columns.items():
        if bad := [value for value in values if not isinstance(value, str | int | float | None)]:
            raise DataError(f"{path}: column {name!r} holds {_short(bad[0])}; must be texts or numbers")
    return columns


TABLES = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def sentences(path: Path) -> tuple[list[str], list[str]]:
    """The columns `text` and `label` of a file whose suffix is among `TABLES`: N strings each, a label "" where none is
    given. Without a column `label` nothing is labelled.

    Raises:
      DataError, ValueError, FileNotFoundError: it cannot be read, or has no column `text`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    read = TABLES[path.suffix]
    try:
        columns = read(path, ("text", "label"))
    except DataError:
        raise
    except ValueError:
        columns = read(path, ("text",))
    texts, *labels = ([_text(each) for each in column] for column in columns.values())
    return texts, labels[0] if labels else [""] * len(texts)
