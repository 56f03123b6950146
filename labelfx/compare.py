"""How many labels does a method save, on these data? Every method at every label budget, on the same splits:

    python -m labelfx.compare --data=FOLDER --out=DIR
    python -m labelfx.compare --data=digits --methods=hard_negative,fixmatch --labels=1,4,25,all --out=DIR

`--data` is a folder of images, a `.csv`, `.jsonl` or `.parquet` file with the columns `text` and `label`, or a data set
by the name that `config.data.name` takes. Methods, numbers of labels, seeds and, of a folder, the size of the images
are picked where none are given; the start says which.

A method is a recipe's name or file. `supervised` is always among them: the others are measured against it. A recipe
that needs no label is trained once a seed, for all budgets; it is used by a linear probe and by fine-tuning, which is
`supervised` from its weights. A recipe with a classifier, or that learns from labels, is trained at every budget. One
that has a teacher learns from the first fine-tuned network of the same budget and seed or, where there is none, from
`supervised`. `--override=steps=1000` replaces a value in every recipe that has it.

Every row is augmented alike, with what suits the data (`AUGMENTATIONS`), whatever its recipe has: a difference of rows
is then one of methods. It is printed at the start, `--override=method.augment.KEY=VALUE` changes it, and with
`--augment=recipe` each recipe keeps its own. The page says what each row had.

Data may be images, texts, vectors or nodes of a graph, labels classes, several labels or targets. Where a recipe's
network cannot read the rows it has one that can, its objective is that of the task, and what is no image is not
augmented; the start says so. Budgets are labels a class or, where there are no classes, rows; floors and the headline
metric suit the data. With `--weak=symmetric:0.2,symmetric:0.4` every run is made under each of these kinds and
strengths of wrong, missing or partial labels (`labelfx.data.weak`), and the page groups by them.

Labels are drawn `--draw=balanced`, as many of every class, which nobody can do before labelling. `--draw=uniform` takes
as many rows at random, `--draw=uniform,balanced,typiclust:ENCODER` draws in each of these ways: by a strategy of
`labelfx.suggest`, too, in rounds, on the features of an encoder (of the rows as they are without `:ENCODER`). The page
then says how many labels each draw saves against the first.

With `--backbone=FOLDER` every method starts from the encoder in a folder, as timm and Hugging Face publish them, by
low-rank updates (recipe `lora`): on a CPU of the last third of its blocks alone, which costs a fifth, unless
`--override='model.lora.paths=("",)'` says all. `frozen`, a classifier on its features, is among the rows, and the floor
is a linear probe of it. Methods that start from nothing go in a folder of their own: `python -m labelfx.report DIR DIR`
puts both on one page.

All configurations and label budgets are checked, and every step is built, before anything is trained. Started again,
the command goes on where it was. It ends in `DIR/report.html`, which `python -m labelfx.report DIR` writes too, at any
time. Machines share a sweep by `--first_seed`, each with a folder of its own: `python -m labelfx.report DIR...` makes
one page of them.
"""

from typing import Any

from absl import flags

from labelfx.config import ConfigError, command
from labelfx.reports.label_budgets import compare


def _main(values: Any, out: str) -> None:
    changes = command.changes(values.override)
    for budget in values.labels:
        if budget != "all" and not (budget.isdecimal() and int(budget)):
            raise ConfigError(
                f"--labels={budget}: must be a number of labels a class, 1 or more, or all (of rows, where no classes)"
            )
    budgets = [budget if budget == "all" else int(budget) for budget in dict.fromkeys(values.labels)]
    if values.first_seed and not values.seeds:
        raise ConfigError(f"--first_seed={values.first_seed}: needs --seeds, how many there are from it on")
    seeds = range(values.first_seed, values.first_seed + values.seeds) if values.seeds else 0
    how = {"augment": values.augment, "weak": values.weak, "draw": values.draw, "backbone": values.backbone}
    found = compare(values.data, out, methods=values.methods, labels=budgets, seeds=seeds, changes=changes, **how)
    print(found)


def main(folder: str = "out") -> None:
    """The command, whose flag `folder` is the folder for all runs."""
    flags.DEFINE_list(
        "methods", [], "Recipes, by name or file; by default two that suit the labels, with a backbone none."
    )
    flags.DEFINE_list("labels", [], "Labels a class (rows, where no classes), or all; by default what there is allows.")
    flags.DEFINE_string("backbone", "", "A file or folder of weights that every method starts from.")
    flags.DEFINE_integer(
        "seeds", None, "How many seeds; by default 5, or 3 of a folder or with a backbone.", lower_bound=1
    )
    flags.DEFINE_integer("first_seed", 0, "The lowest seed, where --seeds says how many.", lower_bound=0)
    flags.DEFINE_enum(
        "augment", "data", ["data", "recipe"], "Every recipe's augmentation: one that suits the data, or each its own."
    )
    flags.DEFINE_list("weak", [], "NAME:STRENGTH of what is said of labels, as symmetric:0.2; by default the truth.")
    flags.DEFINE_list(
        "draw", ["balanced"], "How rows are drawn: balanced, uniform, or a strategy, perhaps STRATEGY:ENCODER."
    )
    flags.DEFINE_multi_string("override", [], "PATH=VALUE, in every recipe that has PATH; data.KEY=VALUE for all.")
    strings = {
        "data": "a folder of images, a .csv, .jsonl or .parquet file of sentences, or a data set's name",
        folder: "the folder for all runs and report.html",
    }
    command.run(lambda values: _main(values, values[folder].value), config=False, strings=strings)


if __name__ == "__main__":
    main()
