"""The table of recipes in `configs/README.md`: what each one is, and what it reaches on the digits with few labels.

    python -m experiments.recipes --workdir=/tmp/labelfx/recipes

Every recipe of the digits that starts from no other run, as it stands, at 10 labels a class over five paired seeds, by
`labelfx.benchmark`; of the others the table says what they are. Started again, the command goes on where it was.
"""

import ast
import statistics
from pathlib import Path

import labelfx
from labelfx import config as configs
from labelfx.benchmark import BASELINE, DEFAULTS, benchmark
from labelfx.config import command
from labelfx.table import Row, differences, half_width, read

CONFIGS = Path(__file__).parents[1] / "configs"
DIGITS = {"name": "digits"}
LABELS, SEEDS = 10, range(5)
HEAD = f"""# Recipes

One runnable configuration a file: `python -m labelfx.train --config=NAME --workdir=DIR`. Its docstring has its cost.
The published full-scale recipes are in [papers/](papers).

Accuracy on the handwritten digits in %, with {LABELS} labels a class, whatever number a recipe itself names: mean and
standard deviation over {len(SEEDS)} seeds and label draws, by the recipe's own classifier or, where it trains none, by
a linear probe on its features; then after fine-tuning. In brackets the paired difference to `{BASELINE}`, mean and
standard error, where that is not noise (its 95 % interval does not hold 0; of twenty such about one is chance). Recipes
are as they stand: they take as many steps as they say, and none was tuned for this. The teacher of `distillation` is
the first fine-tuned encoder of the table. Where there is no number the recipe has other data, or starts from another
run. `python -m experiments.recipes` writes this page, in an hour and a half of one CPU core.
"""


def main(workdir: str | Path, out: Path = CONFIGS / "README.md") -> None:
    """Runs what has no results yet and writes the table to `out`."""
    benchmark(DIGITS, measured(), [LABELS], SEEDS, workdir, augment="recipe")
    configs.write_text(out, HEAD + "\n" + table(workdir))


def names() -> list[str]:
    """Of every recipe but the published ones."""
    return sorted(path.stem for path in CONFIGS.glob("*.py"))


def measured() -> list[str]:
    """Of those recipes that a benchmark on the digits can hold."""
    found = {name: DEFAULTS | labelfx.recipe(name) for name in names()}
    return [
        name
        for name, config in found.items()
        if config["data"] == DIGITS and not (config["labels"].get("weak") or asks(config) or starts_elsewhere(config))
    ]


def starts_elsewhere(config: dict) -> bool:
    """Whether the recipe starts from another run, or learns from several: a benchmark trains one teacher."""
    return bool(config["backbone"]) or len(configs.places(config["teacher"])) > 1


def asks(config: dict) -> bool:
    """Whether the recipe buys labels beside those that it is given."""
    return any(phase.get("ask") for phase in config["phases"])


def table(workdir: str | Path) -> str:
    """Markdown, a line for each recipe, and the commits of the results."""
    rows = {(row.name, row.eval): row for row in read([workdir])[0]}
    base = rows[BASELINE, "head"]
    lines = ["| recipe | what it is | accuracy | fine-tuned |", "| --- | --- | ---: | ---: |"]
    for name in names():
        what = " ".join(
            (ast.get_docstring(ast.parse((CONFIGS / f"{name}.py").read_text())) or "").split("\n\n")[0].split()
        )
        direct = rows.get((name, "head")) or rows.get((name, "linear_probe"))
        tuned = rows.get((f"{name} + finetune", "head"))
        lines.append(f"| [{name}]({name}.py) | {what.rstrip('.')} | {_cell(direct, base)} | {_cell(tuned, base)} |")
    floors = [f"{row.eval} {_cell(row, base).replace('<br>', ' ')}" for row in rows.values() if not row.name]
    commits = sorted({commit for row in rows.values() for commit in row.commits})
    return "\n".join([*lines, "", f"Floors: {', '.join(floors)}. At commit {', '.join(commits)}."]) + "\n"


def _cell(row: Row | None, base: Row) -> str:
    if row is None:
        return ""
    ((budget, _),) = row.results.items()
    runs, pairs = row.runs(budget), differences(row, base, budget)
    mean, sd = statistics.fmean(runs), statistics.stdev(runs) if len(runs) > 1 else 0.0
    clear = row is not base and abs(statistics.fmean(pairs)) > half_width(pairs)
    error = statistics.stdev(pairs) / len(pairs) ** 0.5 if clear else 0.0
    difference = f"<br>({100 * statistics.fmean(pairs):+.1f} ± {100 * error:.1f})" if clear else ""
    return f"{100 * mean:.1f} ± {100 * sd:.1f}{difference}"


if __name__ == "__main__":
    command.run(lambda values: main(values.workdir), config=False)
