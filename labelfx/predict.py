"""What a trained classifier says of other images or sentences, as a table, and the command:

    python -m labelfx.predict --workdir=DIR --images=FOLDER --out=FILE.csv
    python -m labelfx.predict --workdir=DIR --images=SENTENCES.csv --out=FILE.csv

`--images` is a folder of images in any layout, read as `labelfx.features` reads it, or a `.csv`, `.jsonl` or `.parquet`
file with a column `text`.

FILE has a line a row with the columns `file`, `class` and `probability`, and for sentences `text`: the most probable
class, how probable it is, and the name below the folder, with `/`, or the table's name with the number of the row from
0. Of several labels there is a line for each label of each row; of targets the columns are `file`, a number for each
target, and `text`.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from labelfx.config import ConfigError, command, local, replacing
from labelfx.data import DataError
from labelfx.data.pictures import blocks_of
from labelfx.data.sources.own import TABLES, sentences
from labelfx.finished.encoder import Encoder, load
from labelfx.loop.run import keep_compiled_programs


def predict(workdir: str | Path, data: str | Path, out: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The command as a function.

    Returns:
      Names, strings [N], and what `labelfx.load(workdir).predict` gives, float32 [N, classes].

    Raises:
      FileNotFoundError, ConfigError: as for `labelfx.load`; the run trained no classifier of whole rows; `data` cannot
        be read, or is not of what the run reads; `out` is no .csv.
      OSError: `out` cannot be written; nothing is left of it.
    """
    if (out := local(out)).suffix != ".csv":
        raise ConfigError(f"--out={out}: must end in .csv")
    keep_compiled_programs()
    encoder, root = load(workdir), local(data)
    if encoder.head is None:
        how = "take a recipe with a classifier, such as frozen or finetune, or fit one on labelfx.features"
        raise ConfigError(f"--workdir={workdir}: that run trained no classifier; {how}")
    if encoder.task not in ("class", "several", "target"):
        raise ConfigError(f"--workdir={workdir}: labels of that run are {encoder.task}, which are no table")
    with replacing(out) as file:
        try:
            found = list(_of_table(encoder, root) if root.suffix in TABLES else _of_folder(encoder, root))
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"--images={error}") from error
        names, texts = ([value for each in column for value in each] for column in list(zip(*found, strict=True))[:2])
        values = np.concatenate([each for *_, each in found])
        file.write(_table(encoder, names, texts, values).encode(errors="replace"))  # a file's name may be no Unicode
    print(f"{out}: {len(names):,} rows")
    return np.array(names), values


def _of_folder(encoder: Encoder, root: Path) -> Iterator[tuple[list[str], list[str], np.ndarray]]:
    if len(encoder.shape) != 3 or encoder.dtype != "uint8" or encoder.shape[2] not in (1, 3):
        raise DataError(f"{root}: must be a file {' '.join(TABLES)} of sentences, or a folder for a run on images")
    for names, images in blocks_of(root, encoder.shape):
        yield names.tolist(), [], encoder.predict(images)


def _of_table(encoder: Encoder, path: Path) -> Iterator[tuple[list[str], list[str], np.ndarray]]:
    if encoder.tokenizer is None:
        raise DataError(f"{path}: must be a folder of images; that run reads no sentences")
    texts, _ = sentences(path)
    if not texts:
        raise DataError(f"{path}: holds no rows")
    yield [f"{path.name}/{row}" for row in range(len(texts))], texts, encoder.predict(texts)


def _table(encoder: Encoder, names: list[str], texts: list[str], values: np.ndarray) -> str:
    """The lines of the file."""
    classes = list(encoder.class_names) or ["value"]
    rows: list[list[str]]
    if encoder.task == "target":
        head, rows = classes, [[f"{value:.6g}" for value in row] for row in values]
    elif encoder.task == "several":
        head, rows = (
            ["class", "probability"],
            [[c, f"{p:.6g}"] for row in values for c, p in zip(classes, row, strict=True)],
        )
    else:
        head, rows = ["class", "probability"], [[classes[row.argmax()], f"{row.max():.6g}"] for row in values]
    each = len(rows) // len(names)  # lines a row
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow(["file", *head, *(["text"] if texts else [])])
    for place, row in enumerate(rows):
        lines.writerow([names[place // each], *row, *([texts[place // each]] if texts else [])])
    return stream.getvalue()


def main() -> None:
    strings = command.WORKDIR | {
        "images": "a folder of images, or a .csv, .jsonl or .parquet file with a column text",
        "out": "the .csv file to write",
    }
    command.run(lambda flags: predict(flags.workdir, flags.images, flags.out), config=False, strings=strings)


if __name__ == "__main__":
    main()
