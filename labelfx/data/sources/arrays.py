"""Rows that are in memory already."""

from typing import Any

import numpy as np

from labelfx.data import Dataset, Split, labelled, task
from labelfx.data.weak import COLUMNS


def arrays() -> Dataset:
    """Your own arrays, given from Python: `labelfx.train(config, workdir, dataset=labelfx.data.Dataset(...))`, and
    `labelfx.evaluate` alike.

    Raises:
      ValueError: there are none, as from a command line.
    """
    raise ValueError("arrays come from Python: labelfx.train(config, workdir, dataset=...); for files take npz:FILE")


def check_arrays(dataset: Dataset) -> None:
    """ValueError, one line, where a data set's arrays are not what `labelfx.data.Split` says."""
    of: Any = {"train": dataset.train, "test": dataset.test}
    for name, split in of.items():
        if split is not None:
            _check(name, split, dataset.class_names)
    if dataset.test is not None:
        one, other = (f"{each.inputs.dtype} {list(each.inputs.shape[1:])}" for each in (dataset.train, dataset.test))
        if one != other:
            raise ValueError(f"train.inputs are rows of {one}, test.inputs of {other}; must be alike")


def _check(name: str, split: Split, class_names: tuple[str, ...]) -> None:
    inputs, labels, columns = split
    if str(inputs.dtype) not in ("uint8", "float32", "int32"):
        raise ValueError(f"{name}.inputs is {inputs.dtype}; must be uint8, float32 or int32")
    if not len(inputs):
        raise ValueError(f"{name}.inputs has no row")
    if str(labels.dtype) not in ("int32", "int8", "float32"):
        raise ValueError(f"{name}.labels is {labels.dtype}; must be int32, int8 (several labels) or float32 (targets)")
    for what, column in {"labels": labels, **{f"columns[{key!r}]": value for key, value in columns.items()}}.items():
        if len(column) != len(inputs):
            raise ValueError(f"{name}.{what} has {len(column)} rows, {name}.inputs {len(inputs)}")
    kind, most = task(labels, class_names), len(class_names)
    if kind in ("class", "dense", "tags") and labels.size and not (labels.min() >= -1 and labels.max() < most):
        raise ValueError(f"{name}.labels lie in {labels.min()}..{labels.max()}; allowed -1..{most - 1}, -1 unknown")
    if kind == "several" and (labels.shape[1] != most or not np.isin(labels, (-1, 0, 1)).all()):
        raise ValueError(f"{name}.labels must be 1, 0 or -1 (unknown), int8 [N, {most}], a column a class name")
    if name == "test" and kind != "none" and not labelled(labels).any() and not columns.keys() & COLUMNS.keys():
        raise ValueError("test.labels are all unknown; leave the test split out, test=None")
