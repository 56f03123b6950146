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
`train/ROW`. DIR2 keeps the rows' features too, so that the next call on the same files encodes none of them again.

A strategy is a query of `labelfx.labels.queries`. For the first labels take `typiclust`, the default, `probcover` or
`k_centre`, which go by features alone; `margin`, `entropy`, `badge`, `dropquery` and `clue` go by a logistic regression
on the features of what is labelled. Of rows with the same features, such as copies of a file, one is suggested.
"""

from typing import Any

from absl import flags as absl_flags

from labelfx import config as configs
from labelfx.config import ConfigError, command
from labelfx.labels.suggestions import suggest


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
