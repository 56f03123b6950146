"""Which rows to label next: the table to fill in, and the page that shows them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labelfx import config as configs
from labelfx.config import ConfigError, local, make_folder, write_text
from labelfx.data import row_names
from labelfx.data.decode import load_image
from labelfx.evals.kept import kept_in
from labelfx.finished.encoder import load
from labelfx.finished.rows import Rows, encoded, read_rows
from labelfx.labels import queries
from labelfx.labels.answers import answers, write_answers
from labelfx.labels.evidence import of_features
from labelfx.loop.run import keep_compiled_programs
from labelfx.reports.contact_sheet import contact_sheet
from labelfx.reports.figures import to_picture


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
    encoder = load(backbone)
    rows = read_rows(str(data), encoder)
    told = {**rows.labels, **told}
    where = f"--labels={labels}", data
    _places(rows, told, *where)  # before it takes its time
    with kept_in(folder):
        features = encoded(rows, encoder)
    names, places = row_names(rows.inputs), _places(rows, told, *where)
    labelled = np.array([places[name] for name in told], np.int64)
    evidence = of_features(features, labelled, np.unique([*told.values()], return_inverse=True)[1])
    left = _different(features, labelled)
    try:
        query = configs.build(configs.QUERIES, how)
        chosen = queries.pick(query, evidence, labelled, left, count, np.random.default_rng(seed))
    except ValueError as error:
        raise ConfigError(f"--strategy={how['name']}: {error}") from error
    asked, shown = [names[row] for row in chosen], [_shown(rows, names, row) for row in chosen]
    if unwritable := [name for name in asked if name.encode(errors="replace").decode() != name]:
        raise ConfigError(f"--data={data}: {ascii(unwritable[0])} is no Unicode; give the file another name")
    make_folder(folder)
    lead = f"{count} of {len(names):,} rows, chosen by {how['name']}; fill in the column label of {table.name}."
    write_text(folder / "suggested.html", contact_sheet("Which to label next", lead, asked, shown))
    write_answers(table, told, asked, [each for each in shown if isinstance(each, str)])
    print(f"{table}: {count} of {len(names):,} rows to label, {len(told)} labelled; see {folder}/suggested.html")
    return asked


def _places(rows: Rows, told: Iterable[str], labels: str, data: str | Path) -> dict[str, int]:
    """Name -> the first row of that name; ConfigError where one of `told` is not there."""
    names, places = row_names(rows.inputs), dict[str, int]()
    for row, name in enumerate(names):
        places.setdefault(name, row)
    if missing := sorted({*told} - places.keys()):
        raise ConfigError(f"{labels}: names {missing[0]}, which is not in {data}; as {names[0]} is")
    return places


def _different(features: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The rows that are equal neither to a labelled one nor to one before them, int64 [L]."""
    first = {features[row].tobytes(): -1 for row in labelled}
    for row, each in enumerate(features):
        first.setdefault(each.tobytes(), row)
    return np.array([row for row in first.values() if row >= 0], np.int64)


def _shown(rows: Rows, names: Sequence[str], row: int) -> Image.Image | str:
    """The picture of a row or, where it is none, what it says."""
    if rows.folder is not None:
        return load_image(rows.folder / names[row])
    if rows.texts is not None:
        return rows.texts[row]
    found = rows.inputs[row]
    if rows.tokenizer is not None:
        return " / ".join(map(rows.tokenizer.decode, found.reshape(-1, found.shape[-1])))  # perhaps a pair
    return to_picture(found) if found.ndim == 3 else ", ".join(f"{each:.4g}" for each in found[:20])
