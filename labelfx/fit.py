"""A trained network of your own images, sentences or numbers, a few of them labelled:

    python -m labelfx.fit --data=FOLDER --out=DIR
    python -m labelfx.fit --data=FOLDER --out=DIR --backbone=ENCODER
    python -m labelfx.fit --data=SENTENCES.csv --out=DIR

`--data` is a folder of images as the source `folder` reads it, a `.csv`, `.jsonl` or `.parquet` file with the columns
`text` and `label`, or a data set by the name that `config.data.name` takes. With `--backbone`, a file or folder of
weights as timm and Hugging Face publish them, it is a classifier on the features of that encoder (recipe `frozen`).
Without one, images are learnt from in the way of `own_images`, labelled or not, and the network is then fine-tuned on
the labels; sentences take `own_sentences`, numbers `regression`. Two lines say what was picked, and why. What is
labelled is what the data say or, with `--labels`, a table that `labelfx.suggest` has made and you have filled in.

DIR is the folder of an ordinary run: `python -m labelfx.predict`, `report`, `features` and all others take it. Started
again, the command goes on where it was.
"""

from typing import Any

from absl import flags as absl_flags

from labelfx.config import command
from labelfx.loop.fitted import fit


def main() -> None:
    absl_flags.DEFINE_string("backbone", "", "A file or folder of weights to start from.")
    absl_flags.DEFINE_string("recipe", "", "A recipe instead of the one that would be picked.")
    absl_flags.DEFINE_string(
        "labels", None, "A table of labels, such as a filled suggested.csv; by default the data's."
    )
    absl_flags.DEFINE_integer("seed", 0, "Of the run, its batches and its labels.", lower_bound=0)
    absl_flags.DEFINE_multi_string("override", [], "PATH=VALUE, in the configuration that was picked.")
    strings = {
        "data": "a folder of images, a .csv, .jsonl or .parquet file of sentences, or a data set's name",
        "out": "the folder of the run",
    }

    def start(flags: Any) -> None:
        how = {"backbone": flags.backbone, "recipe": flags.recipe, "labels": flags.labels, "seed": flags.seed}
        found = fit(flags.data, flags.out, changes=command.changes(flags.override), **how)
        print(f"saved in {flags.out}: {found}")

    command.run(start, config=False, strings=strings)


if __name__ == "__main__":
    main()
