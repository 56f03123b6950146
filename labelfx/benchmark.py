"""How many labels does a method save, on these data? Every method at every label budget, on the same splits:

    python -m labelfx.benchmark --data=digits --methods=hard_negative,fixmatch --labels=1,4,25,all --workdir=DIR

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
low-rank updates (recipe `lora`); `frozen`, a classifier on its features, is among the rows, and the floor is a linear
probe of it. Methods that start from nothing go in a folder of their own: `python -m labelfx.report DIR DIR` puts both
on one page.

All configurations and label budgets are checked, and every step is built, before anything is trained. Started again,
the command goes on where it was. It ends in `DIR/report.html`, which `python -m labelfx.report DIR` writes too, at any
time. Machines share a sweep by `--first_seed`, each with a folder of its own: `python -m labelfx.report DIR...` makes
one page of them.
"""

from typing import Any

from absl import flags

from labelfx import config as configs
from labelfx.config import ConfigError, command
from labelfx.reports.label_budgets import BASELINE as BASELINE
from labelfx.reports.label_budgets import DEFAULTS as DEFAULTS
from labelfx.reports.label_budgets import benchmark


def _value(word: str, value: str) -> Any:
    """What an `--override` has behind its `=`."""
    found = configs.literal(value)
    if isinstance(found, str) and value.startswith(tuple("{[(")):
        raise ConfigError(f"--override={word}: neither Python nor JSON, as in {{'name': 'crop_flip', 'flip': True}}")
    return found


def _main(values: Any) -> None:
    overrides = {}
    for word in values.override:
        path, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--override={word}: must be PATH=VALUE, as in steps=1000")
        overrides[path] = _value(word, value)
    data = {"name": values.data} | {
        path.removeprefix("data."): overrides.pop(path) for path in list(overrides) if path.startswith("data.")
    }
    for budget in values.labels:
        if budget != "all" and not (budget.isdecimal() and int(budget)):
            raise ConfigError(
                f"--labels={budget}: must be a number of labels a class, 1 or more, or all (of rows, where no classes)"
            )
    budgets = [budget if budget == "all" else int(budget) for budget in dict.fromkeys(values.labels)]
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    print(
        benchmark(
            data,
            values.methods,
            budgets,
            seeds,
            values.workdir,
            overrides,
            values.augment,
            values.weak,
            values.draw,
            values.backbone,
        )
    )


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "Data set, as in config.data.name.", required=True)
    flags.DEFINE_list("methods", None, "Recipes, by name or file.", required=True)
    flags.DEFINE_list("labels", ["1", "4", "25", "100", "all"], "Labels a class (rows, where no classes), or all.")
    flags.DEFINE_string("backbone", "", "A file or folder of weights that every method starts from.")
    flags.DEFINE_integer("seeds", 5, "How many seeds.", lower_bound=1)
    flags.DEFINE_integer("first_seed", 0, "The lowest seed.", lower_bound=0)
    flags.DEFINE_enum(
        "augment", "data", ["data", "recipe"], "Every recipe's augmentation: one that suits the data, or each its own."
    )
    flags.DEFINE_list("weak", [], "NAME:STRENGTH of what is said of labels, as symmetric:0.2; by default the truth.")
    flags.DEFINE_list(
        "draw", ["balanced"], "How rows are drawn: balanced, uniform, or a strategy, perhaps STRATEGY:ENCODER."
    )
    flags.DEFINE_multi_string("override", [], "PATH=VALUE, in every recipe that has PATH; data.KEY=VALUE for all.")
    command.run(_main, config=False)
