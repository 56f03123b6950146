"""Which rows to label next, by what an encoder makes of them, as a table to fill in:

    python -m labelfx.suggest --data=FOLDER --backbone=DIR --count=20 --out=DIR2
    python -m labelfx.suggest --data=FOLDER --backbone=DIR --count=20 --out=DIR2 \\
        --labels=DIR2/suggested.csv --strategy=margin

`--data` is a folder of images in any layout; a `.csv`, `.jsonl` or `.parquet` file with a column `text` and perhaps one
`label`; or `train`, the training rows of the run in `--backbone`, of which those that its label view tells are labelled
(`./train` is a folder). Where a folder holds `unlabelled/`, it is read as the source `folder` reads it: what lies in
`train/CLASS/` is labelled, and `test/` is left alone. `--backbone` is whatever `labelfx.load` takes.

DIR2 then holds `suggested.csv`, with the columns `file` and `label`, and `suggested.html`, which shows the pictures or
sentences. Fill the labels in; what is still empty counts as not labelled. With `--labels` the next call goes on from
there: its table has the labels so far first, and `labels=dict(name="file", path="DIR2/suggested.csv")` in a config is
the label view of these rows with these labels. Images are called by their names below the folder, other rows
`train/ROW`.

A strategy is a query of `labelfx.labels.queries`. For the first labels take `typiclust`, the default, `probcover` or
`k_centre`, which go by features alone; `margin`, `entropy`, `badge`, `dropquery` and `clue` go by a logistic regression
on the features of what is labelled. Of rows with the same features, such as copies of a file, one is suggested.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags as absl_flags
from PIL import Image

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError, command, local, make_folder, write_text
from labelfx.data import Dataset, known, row_names
from labelfx.data.decode import load_image
from labelfx.data.sources.folders import UNLABELLED, folder
from labelfx.data.sources.own import TABLES, sentences
from labelfx.data.tokens import Tokenizer
from labelfx.features import _of_folder
from labelfx.labels import queries
from labelfx.labels.answers import answers, write_answers
from labelfx.labels.evidence import of_features
from labelfx.loop.run import keep_compiled_programs, load_config, load_data
from labelfx.reports.contact_sheet import contact_sheet
from labelfx.reports.figures import to_picture


class Rows(NamedTuple):
    """What there is to label: names, features float32 [N, F], name -> label of what is labelled; and for pictures the
    folder of the files, or inputs [N, ...], token ids with their tokenizer, or texts [N]."""

    names: list[str]
    features: np.ndarray
    labels: dict[str, str]
    folder: Path | None
    inputs: Any
    tokenizer: Tokenizer | None = None


def suggest(
    data: str | Path,
    backbone: str | Path,
    count: int,
    out: str | Path,
    *,
    strategy: str | Mapping[str, Any] = "typiclust",
    labels: str | Path | None = None,
    seed: int = 0,
) -> list[str]:
    """The command as a function: writes `out/suggested.csv` and `out/suggested.html`.

    Args:
      strategy: a query's name, or a dict of its name and keys, by default those of `labelfx.labels.queries.PUBLISHED`.
      labels: a table of what is labelled already, such as a filled `suggested.csv`.
      seed: of what the strategy draws.

    Returns:
      The names of the suggested rows, `count` of them, in the order of the strategy.

    Raises:
      FileNotFoundError, ConfigError, DataError: as for `labelfx.load`; the data or the table cannot be read, or name
        rows that are not there; no such strategy, or one that goes by probabilities before two classes are labelled;
        fewer rows are left; `out` holds labels that would be lost.
    """
    folder, told = local(out), {} if labels is None else answers(labels)
    table = folder / "suggested.csv"
    if table.exists() and (lost := answers(table).items() - told.items()):
        raise ConfigError(f"{table}: holds {len(lost)} labels that --labels has not; give it, or another --out")
    named = {"name": strategy} | queries.PUBLISHED.get(strategy, {}) if isinstance(strategy, str) else strategy
    how = configs.check_part(configs.QUERIES, {**named, "count": count}, "strategy")
    keep_compiled_programs()
    rows = _read(str(data), labelfx.load(backbone))
    places: dict[str, int] = {}
    for row, name in enumerate(rows.names):
        places.setdefault(name, row)
    if missing := sorted(told.keys() - places.keys()):
        raise ConfigError(f"--labels={labels}: names {missing[0]}, which is not in {data}; as {rows.names[0]} is")
    told = rows.labels | told
    labelled = np.array([places[name] for name in told], np.int64)
    evidence = of_features(rows.features, labelled, np.unique([*told.values()], return_inverse=True)[1])
    left = _different(rows.features, labelled)
    try:
        query = configs.build(configs.QUERIES, how)
        chosen = queries.pick(query, evidence, labelled, left, count, np.random.default_rng(seed))
    except ValueError as error:
        raise ConfigError(f"--strategy={how['name']}: {error}") from error
    names, shown = [rows.names[row] for row in chosen], [_shown(rows, row) for row in chosen]
    if unwritable := [name for name in names if name.encode(errors="replace").decode() != name]:
        raise ConfigError(f"--data={data}: {ascii(unwritable[0])} is no Unicode; give the file another name")
    make_folder(folder)
    lead = f"{count} of {len(rows.names):,} rows, chosen by {how['name']}; fill in the column label of {table.name}."
    write_text(folder / "suggested.html", contact_sheet("Which to label next", lead, names, shown))
    write_answers(table, told, names, [each for each in shown if isinstance(each, str)])
    print(f"{table}: {count} of {len(rows.names):,} rows to label, {len(told)} labelled; see {folder}/suggested.html")
    return names


def _read(data: str, encoder: Any) -> Rows:
    if data == "train":
        config = load_config(encoder.workdir)
        dataset, view = load_data(config, encoder.workdir)
        if dataset.task not in ("class", "none"):
            raise ConfigError(f"--data=train: labels of that run are {dataset.task}; only classes can be filled in")
        said = view.split.labels.copy()
        if view.held_out is not None:
            said[view.validation] = view.held_out.labels
        source, _, path = config.data["name"].partition(":")
        files = source == "folder" and not config.data["merge"]
        return _of_source(dataset, said, encoder, Path(path) if files else None)._replace(tokenizer=encoder.tokenizer)
    root = local(data)
    try:
        if root.suffix in TABLES and root.is_file():
            if encoder.tokenizer is None:
                raise ConfigError(f"holds sentences; {encoder.workdir} is an encoder of other rows")
            texts, labels = sentences(root)
            names = row_names(texts)
            told = {name: label for name, label in zip(names, labels, strict=True) if label}
            return Rows(names, encoder(texts), told, None, texts)
        if not root.is_dir():
            raise ConfigError(f"neither a folder, nor a file {' '.join(TABLES)}, nor 'train'")
        if (root / UNLABELLED).is_dir() and len(encoder.shape) == 3:
            dataset = folder(str(root), image_size=encoder.shape[0], channels=encoder.shape[2])
            return _of_source(dataset, dataset.train.labels, encoder, root)
        found, features = _of_folder(encoder, root)
        return Rows(found.tolist(), features, {}, root, None)
    except ValueError as error:
        raise ConfigError(f"--data={data}: {str(error).removeprefix(f'--images={root}: ')}") from error


def _of_source(dataset: Dataset, said: np.ndarray, encoder: Any, root: Path | None) -> Rows:
    """The training rows, of which the classes `said` [N] are told, -1 where none is."""
    inputs = dataset.train.inputs
    features, names = encoder(inputs), row_names(inputs)  # in this order: files that cannot be read are known then
    told = {names[row]: dataset.class_names[said[row]] for row in np.flatnonzero(known(said))}
    return Rows(names, features, told, root, inputs)


def _different(features: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The rows that are equal neither to a labelled one nor to one before them, int64 [L]."""
    first = {features[row].tobytes(): -1 for row in labelled}
    for row, each in enumerate(features):
        first.setdefault(each.tobytes(), row)
    return np.array([row for row in first.values() if row >= 0], np.int64)


def _shown(rows: Rows, row: int) -> Image.Image | str:
    """The picture of a row or, where it is none, what it says."""
    if rows.folder is not None:
        return load_image(rows.folder / rows.names[row])
    found = rows.inputs[row]
    if isinstance(found, str):
        return found
    if rows.tokenizer is not None:
        return " / ".join(map(rows.tokenizer.decode, found.reshape(-1, found.shape[-1])))  # perhaps a pair
    return to_picture(found) if found.ndim == 3 else ", ".join(f"{each:.4g}" for each in found[:20])


def main() -> None:
    strings = {
        "data": "a folder of images, a .csv, .jsonl or .parquet file of sentences, or train: that of the run",
        "backbone": "the encoder: a finished run's folder, or a file or folder of weights",
        "count": "how many rows to suggest",
        "out": "the folder for suggested.csv and suggested.html",
    }
    absl_flags.DEFINE_string("strategy", "typiclust", f"One of {', '.join(configs.names(configs.QUERIES))}.")
    absl_flags.DEFINE_string("labels", None, "A table of what is labelled already, such as a filled suggested.csv.")
    absl_flags.DEFINE_integer("seed", 0, "Of what the strategy draws.", lower_bound=0)

    def start(flags: Any) -> None:
        if not flags.count.isdecimal():
            raise ConfigError(f"--count={flags.count}: must be an integer >= 1")
        how = {"strategy": flags.strategy, "labels": flags.labels, "seed": flags.seed}
        suggest(flags.data, flags.backbone, int(flags.count), flags.out, **how)

    command.run(start, config=False, strings=strings)


if __name__ == "__main__":
    main()
