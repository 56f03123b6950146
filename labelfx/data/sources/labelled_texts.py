"""Texts with labels: classes, several labels, or the votes of labelling functions. Tokens are those of `text`."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labelfx.config import local
from labelfx.config.annotations import PositiveInt
from labelfx.data import DataError, Dataset, Split
from labelfx.data.sources.text import _read
from labelfx.data.tokens import tokenizer_for


def banking77(*, data_dir: str, vocab_size: PositiveInt, max_length: PositiveInt, tokenizer: str = "") -> Dataset:
    """BANKING77: 10,003 + 3,080 questions to a bank, of 77 intents.

    data_dir: holds train.csv and test.csv, with the columns text and category, and categories.json.

    Source: Casanueva et al. 2020, "Efficient Intent Detection with Dual Sentence Encoders".
    """
    root = local(data_dir)
    names = _json(root / "categories.json")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names) and len({*names}) == len(names)):
        raise DataError(f"{root / 'categories.json'}: must be a list of different names")
    number = {name: i for i, name in enumerate(names)}
    parts = []
    for path in (root / "train.csv", root / "test.csv"):
        rows = csv.reader(io.StringIO(_read(path, "utf-8"), newline=""), strict=True)
        try:
            header, *found = rows
        except (csv.Error, ValueError) as error:
            raise DataError(f"{path}: line {rows.line_num}: {error}") from error
        if header != ["text", "category"] or not found:
            raise DataError(f"{path}: must have the columns text and category, and rows")
        for row in found:
            if len(row) != 2 or row[1] not in number:
                raise DataError(f"{path}: {_short(row)}; must be a text and one of the {len(names)} categories")
        parts.append(([text for text, _ in found], np.array([number[name] for _, name in found], np.int32)))
    return _texts(parts[0], parts[1], names, tokenizer, vocab_size, max_length)


def clinc150(
    *,
    data_dir: str,
    variant: Literal["full", "small", "imbalanced"],
    split: Literal["val", "test"],
    out_of_scope: bool,
    vocab_size: PositiveInt,
    max_length: PositiveInt,
    tokenizer: str = "",
) -> Dataset:
    """CLINC150: requests to an assistant, of 150 intents; 15,000 to train on (`small` 7,500, `imbalanced` 10,525).

    data_dir: holds data_full.json or that of another variant.
    split: what is tested on: the 4,500 of the test set or, to choose a method by, the 3,000 of val.
    out_of_scope: with the class "oos", the last, of requests that have none of the intents: 100 to train on, 1,000 in
      the test set and 100 in val. Else they are left out.

    Source: Larson et al. 2019, "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction".
    """
    path = local(data_dir) / f"data_{variant}.json"
    found = _json(path)
    wanted = ["train", split, *(["oos_train", f"oos_{split}"] if out_of_scope else [])]
    pairs: dict[str, Any] = {name: found.get(name) if isinstance(found, dict) else None for name in wanted}
    for name, rows in pairs.items():
        if not isinstance(rows, list) or not rows or not all(_is_pair(row) for row in rows):
            raise DataError(f"{path}: {name} must be a list of pairs of a text and an intent")
    names = sorted({intent for _, intent in pairs["train"]})
    if len(names) < 2:
        raise DataError(f"{path}: train has {len(names)} intents; at least 2 are needed")
    names += ["oos"] if out_of_scope else []
    number = {name: i for i, name in enumerate(names)}
    parts = []
    for part in ("train", split):
        rows = pairs[part] + (pairs[f"oos_{part}"] if out_of_scope else [])
        for text, intent in rows:
            if intent not in number:
                raise DataError(f"{path}: {part} has {_short([text, intent])}, whose intent is none of train's")
        parts.append(([text for text, _ in rows], np.array([number[intent] for _, intent in rows], np.int32)))
    return _texts(parts[0], parts[1], names, tokenizer, vocab_size, max_length)


def goemotions(
    *,
    data_dir: str,
    split: Literal["dev", "test"],
    vocab_size: PositiveInt,
    max_length: PositiveInt,
    tokenizer: str = "",
) -> Dataset:
    """GoEmotions: 43,410 comments, each with some of 28 labels: 27 emotions, and neutral. Labels int8 [N, 28].

    data_dir: holds train.tsv, dev.tsv and test.tsv, with lines `text TAB label numbers with commas TAB id`, and
      labels.txt. The comments are unfiltered.
    split: what is tested on: the 5,427 of the test set or, to choose a method by, the 5,426 of dev.

    Source: Demszky et al. 2020, "GoEmotions: A Dataset of Fine-Grained Emotions".
    """
    root = local(data_dir)
    names = _read(root / "labels.txt", "utf-8").split()
    if len(names) < 2 or len({*names}) < len(names):
        raise DataError(f"{root / 'labels.txt'}: must be different names, one a line")
    parts = []
    for path in (root / "train.tsv", root / f"{split}.tsv"):
        lines = [line.split("\t") for line in _read(path, "utf-8").split("\n") if line]
        labels = np.zeros((len(lines), len(names)), np.int8)
        for row, line in enumerate(lines):
            numbers = (
                [int(n) if re.fullmatch(r"\d{1,9}", n) else -1 for n in line[1].split(",")] if len(line) == 3 else []
            )
            if not numbers or not all(0 <= n < len(names) for n in numbers):
                allowed = f"a text, numbers 0 to {len(names) - 1} with commas, an id"
                raise DataError(f"{path}: line {row + 1} must be {allowed}, with tabs between them")
            labels[row, numbers] = 1
        if not lines:
            raise DataError(f"{path}: holds no rows")
        parts.append(([line[0] for line in lines], labels))
    return _texts(parts[0], parts[1], names, tokenizer, vocab_size, max_length)


def wrench(
    which: str,
    *,
    data_dir: str,
    split: Literal["valid", "test"],
    vocab_size: PositiveInt,
    max_length: PositiveInt,
    tokenizer: str = "",
) -> Dataset:
    """Texts that labelling functions have voted on: youtube, sms, trec or semeval of the WRENCH benchmark.

    data_dir: holds WHICH/train.json, valid.json, test.json and label.json. Rows that labeled_ids.json names are
      left out of the training rows where it is there, as the benchmark does.
    split: what is tested on; valid is to choose a method by.

    Labels are the truth; the column `votes` int8 [N, M] has the class that each function names, -1 where it abstains:
    `labels=dict(name="every", weak=dict(name="column", column="votes", role="votes"))` says nothing else. The two
    entities of semeval stand before its texts.

    Source: Zhang et al. 2021, "WRENCH: A Comprehensive Benchmark for Weak Supervision".
    """
    root = local(data_dir) / which
    if not root.is_dir():
        found = ", ".join(sorted(each.name for each in root.parent.glob("*/") if (each / "label.json").exists()))
        raise FileNotFoundError(f"{root.absolute()}: no such folder; there is {found or 'none with a label.json'}")
    names = _json(root / "label.json")
    if not isinstance(names, dict) or list(names) != [str(i) for i in range(len(names))] or len(names) < 2:
        raise DataError(f"{root / 'label.json'}: must name the classes 0, 1, ... in this order")
    apart = _json(root / "labeled_ids.json") if (root / "labeled_ids.json").is_file() else {"labeled_ids": []}
    ids = apart.get("labeled_ids") if isinstance(apart, dict) else None
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise DataError(f"{root / 'labeled_ids.json'}: must have labeled_ids, a list of ids")
    left_out = {*ids}
    parts: list[Any] = []
    functions = 0
    for path in (root / "train.json", root / f"{split}.json"):
        rows = _json(path)
        if not isinstance(rows, dict):
            raise DataError(f"{path}: must be an object of rows by their ids")
        kept = [_voted(path, id, row, len(names)) for id, row in rows.items() if parts or id not in left_out]
        if not kept:
            raise DataError(f"{path}: holds no rows")
        texts, labels, votes = zip(*kept, strict=True)
        functions = functions or len(votes[0])
        if {len(vote) for vote in votes} != {functions}:
            raise DataError(f"{path}: rows of {sorted({len(vote) for vote in votes})} votes; all must have {functions}")
        parts.append((texts, np.array(labels, np.int32), {"votes": np.array(votes, np.int8)}))
    return _texts(parts[0], parts[1], [*map(str, names.values())], tokenizer, vocab_size, max_length)


def _voted(path: Path, id: str, row: Any, classes: int) -> tuple[str, int, list[int]]:
    """Text, class and votes of a row."""
    fields = row if isinstance(row, dict) else {}
    data, label, votes = fields.get("data"), fields.get("label"), fields.get("weak_labels")
    text = [data[key] for key in ("entity1", "entity2", "text") if key in data] if isinstance(data, dict) else []
    right = isinstance(data, dict) and "text" in data and all(isinstance(part, str) for part in text)
    right = right and type(label) is int and 0 <= label < classes and isinstance(votes, list) and bool(votes)
    if not right or not all(type(vote) is int and -1 <= vote < classes for vote in votes or ()):
        raise DataError(
            f"{path}: row {id} must have data.text, a label of 0 to {classes - 1}, and weak_labels, each a class or -1"
        )
    assert isinstance(label, int) and isinstance(votes, list)
    return " ".join(text), label, votes


def _texts(
    train: Any, test: Any, class_names: Sequence[str], tokenizer: str, vocab_size: int, max_length: int
) -> Dataset:
    """The data set of (texts, labels) or (texts, labels, columns)."""
    encode = tokenizer_for(train[0], tokenizer, vocab_size, max_length)
    splits = [Split(encode(texts), *rest) for texts, *rest in (train, test)]
    return Dataset(splits[0], splits[1], tuple(class_names), {"tokenizer": encode})


def _is_pair(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and all(isinstance(each, str) for each in row)


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path, "utf-8"))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON ({error})") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
