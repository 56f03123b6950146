"""How many labels does a method save, on these data? Every method at every label budget, on the same splits:

    python -m labelfx.benchmark --data=digits --methods=hard_negative,fixmatch --labels=1,4,25,all --workdir=DIR

A method is a recipe's name or file. `supervised` is always among them: the others are measured against it. A recipe
that needs no label is trained once a seed, for all budgets; it is used by a linear probe and by fine-tuning, which is
`supervised` from its weights. A recipe with a classifier, or that learns from labels, is trained at every budget. One
that has a teacher learns from the first fine-tuned network of the same budget and seed or, where there is none, from
`supervised`. `--override=steps=1000` replaces a value in every recipe that has it.

All configurations and label budgets are checked before anything is trained. Started again, the command goes on where it
was. It ends in `DIR/report.html`, which `python -m labelfx.report DIR` writes too, at any time. Machines share a sweep
by `--first_seed`, each with a folder of its own: `python -m labelfx.report DIR...` makes one page of them.
"""

import ast
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from labelfx import command, run, sweep
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.report import report
from labelfx.sweep import Job

BASELINE = "supervised"
DEFAULTS = {f.name: f.default for f in dataclasses.fields(configs.Run) if f.default is not dataclasses.MISSING}
HEAD: dict[str, dict] = {"head": {}}
PROBE: dict[str, dict] = {"linear_probe": {}}
FLOORS: dict[str, dict] = {"raw_pixels": {}, "random_encoder": {}}


def benchmark(
    data: Mapping[str, Any],
    methods: Iterable[str],
    budgets: Iterable[int | str],
    seeds: Iterable[int],
    workdir: str | Path,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Runs what has no results yet, and writes and returns `workdir/report.html`.

    Args:
      data: `config.data` of every run.
      methods: names or files of recipes.
      budgets: labels a class, or "all".
      seeds: each is a run's `seed`, `label_seed` and `data_seed`.
      workdir: a folder for all runs.
      overrides: dotted path -> value, for every recipe that has the path.

    Raises:
      ConfigError: a run could not be made as asked for, one in `workdir` has another configuration, or
        another process is at work in there.
    """
    folder = Path(workdir).absolute()
    recipes = read_recipes(data, methods, overrides or {})
    distinct: dict[int, int | str] = {}
    for budget in budgets:
        supervised = recipes[BASELINE] | {"labels": label_view(budget)}
        count = len(run.load_data(configs.check(supervised), folder)[1].rows)
        if distinct.setdefault(count, budget) != budget:
            print(f"--labels={budget}: the same {count} labels as {distinct[count]}; left out", file=sys.stderr)
    every = list(jobs(recipes, distinct.values(), seeds, folder))
    for job in every:
        if not job.pretrained:
            configs.check(job.config)
    folder.mkdir(parents=True, exist_ok=True)
    with run.claim(folder):
        sweep.work_off(every)
    return report([folder], folder / "report.html", BASELINE)


def jobs(
    recipes: Mapping[str, dict[str, Any]], budgets: Iterable[int | str], seeds: Iterable[int], workdir: Path
) -> Iterator[Job]:
    """Every run in an order that can be run; one seed after the other, so that what is done is always paired."""
    shared = [name for name, recipe in recipes.items() if not _learns_from_labels(recipe)]
    teacher = f"{shared[0]}_finetune" if shared else BASELINE
    for seed in seeds:
        folder = workdir / f"seed_{seed}"
        seeded = {"seed": seed, "label_seed": seed, "data_seed": seed}
        for name in shared:
            yield Job(folder / name, recipes[name] | seeded | {"labels": label_view("all"), "evals": {}})
        for budget in budgets:
            labels = label_view(budget)
            at_budget = folder / ("all_labels" if budget == "all" else f"{budget}_per_class")
            for name, recipe in recipes.items():
                if name in shared:
                    yield Job(at_budget / f"{name}_probe", {"labels": labels, "evals": PROBE}, folder / name)
                    tuned = recipes[BASELINE] | seeded | {"labels": labels, "evals": HEAD, "model": recipe["model"]}
                    tuned |= {"name": f"{name} + finetune", "backbone": str(folder / name)}
                    tuned["method"] = recipes[BASELINE]["method"] | {"name": "finetune", "head": "fresh"}
                    yield Job(at_budget / f"{name}_finetune", tuned)
                else:
                    evals = (HEAD if _classifies(recipe) else PROBE) | (FLOORS if name == BASELINE else {})
                    taught = {"teacher": str(at_budget / teacher)} if _taught(recipe) else {}
                    yield Job(at_budget / name, recipe | seeded | {"labels": labels, "evals": evals} | taught)


def read_recipes(
    data: Mapping[str, Any], methods: Iterable[str], overrides: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Name -> configuration: `supervised` first, what has a teacher last, without seeds and labels of its own.

    Raises:
      ConfigError: there is no such recipe, two have one name, one cannot be part of a benchmark, or no recipe has what
        an override replaces.
    """
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        recipe = DEFAULTS | configs.recipe(method)
        if recipe["name"] in found:
            raise ConfigError(f"--methods={method}: another one is named {recipe['name']!r} too; a name is a row")
        if recipe["backbone"]:
            raise ConfigError(f"--methods={method}: starts from another run; every pre-training is fine-tuned anyway")
        found[recipe["name"]] = recipe
    found = {BASELINE: found.get(BASELINE) or DEFAULTS | configs.recipe(BASELINE)} | found
    for path, value in overrides.items():
        _override(found.values(), path, value)
    for recipe in found.values():
        recipe |= {"data": dict(data), "keep": 1}
    return dict(sorted(found.items(), key=lambda item: _taught(item[1])))


def label_view(budget: int | str) -> dict[str, Any]:
    """`config.labels` of a budget."""
    return {"name": "all_labels"} if budget == "all" else {"name": "per_class", "k": budget}


def _learns_from_labels(recipe: Mapping[str, Any]) -> bool:
    batches = (recipe["batch"], *(phase["batch"] for phase in recipe["phases"] if "batch" in phase))
    return _classifies(recipe) or any(batch["labelled"] for batch in batches)


def _classifies(recipe: Mapping[str, Any]) -> bool:
    return "head" in recipe["evals"]


def _taught(recipe: Mapping[str, Any]) -> bool:
    return bool(recipe["teacher"])


def _override(recipes: Iterable[dict[str, Any]], path: str, value: Any) -> None:
    """Replaces the value at a dotted path in the recipes that have it."""
    *parents, last = path.split(".")
    done, known = False, set()
    for recipe in recipes:
        node: Any = recipe
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict) and last in node:
            node[last], done = value, True
        known |= {name.removeprefix("config.") for name in configs.flatten(recipe)}
    if not done:
        raise ConfigError(f"--override={path}=...: no recipe has that; {configs.nearest(path, known)}")


def _main(values: Any) -> None:
    overrides = {}
    for word in values.override:
        path, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--override={word}: must be PATH=VALUE, as in steps=1000")
        try:
            overrides[path] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            overrides[path] = value  # a word without quotes
    data = {"name": values.data} | {
        path.removeprefix("data."): overrides.pop(path) for path in list(overrides) if path.startswith("data.")
    }
    for budget in values.labels:
        if budget != "all" and not (budget.isdecimal() and int(budget)):
            raise ConfigError(f"--labels={budget}: must be a number of labels a class, 1 or more, or all")
    budgets = [budget if budget == "all" else int(budget) for budget in dict.fromkeys(values.labels)]
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    print(benchmark(data, values.methods, budgets, seeds, values.workdir, overrides))


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "Data set, as in config.data.name.", required=True)
    flags.DEFINE_list("methods", None, "Recipes, by name or file.", required=True)
    flags.DEFINE_list("labels", ["1", "4", "25", "100", "all"], "Labels a class, or all.")
    flags.DEFINE_integer("seeds", 5, "How many seeds.", lower_bound=1)
    flags.DEFINE_integer("first_seed", 0, "The lowest seed.", lower_bound=0)
    flags.DEFINE_multi_string("override", [], "PATH=VALUE, in every recipe that has PATH; data.KEY=VALUE for all.")
    command.run(_main, config=False)
