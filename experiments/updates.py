"""What an update of a network breaks, and what a network can be made to forget: `labelfx.derive` on real data.

    python -m experiments.updates --data=DIR --workdir=DIR [--first_seed=0 --seeds=3]

An old network is trained on a fifth of the labels, or on five classes of ten; the new one is tuned from it on all
labels, or starts afresh. Interpolation takes the largest weight of the old network that costs no accuracy on rows held
out. And: networks that learnt from wrong labels, a tenth of which is known, against training without those. Started
again, the command goes on where it was; what is finished is in `experiments/updates/results.json` and, as tables, in
`README.md` beside it.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import labelfx
from experiments.kinds import replaced
from labelfx import config as configs
from labelfx.config import command
from labelfx.derived import Finished

HERE = Path(__file__).parent / "updates"
SEEDS = ("seed", "label_seed", "data_seed")
WEIGHTS = 11  # of the old network, from 0 to 1
SELECTIONS = (1.0, 3.0, 10.0, 30.0)
DATA: dict[str, dict[str, int]] = {
    "digits": {"steps": 300, "held_out": 200},
    "fashion_mnist": {"steps": 1000, "held_out": 2000},
}
UPDATES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a fifth of the labels to all": ({"name": "fraction", "fraction": 0.2, "balanced": True}, {"name": "all_labels"}),
    "five classes to ten": ({"name": "classes", "classes": (0, 1, 2, 3, 4)}, {"name": "all_labels"}),
}
WRONG = {"name": "poisoned", "rate": 0.2, "flagged": 0.1, "rule": "confusion"}


def config(data: Path, name: str, seed: int, labels: dict[str, Any], start: Path | None = None) -> dict[str, Any]:
    """Of a network of one hidden layer; `start` is the run that it is tuned from, head and all."""
    source = {"name": name} | ({} if name == "digits" else {"data_dir": str(data / name)})
    found = replaced(
        "finetune" if start else "supervised",
        {
            "data": source,
            "labels": labels,
            "model": {"name": "mlp", "hidden": (256,), "dtype": "float32"},
            "method.augment": {"name": "identity"},
            "steps": DATA[name]["steps"],
            "evals": {"head": {}},
            **dict.fromkeys(SEEDS, seed),
        },
    )
    if start:
        found["method"]["head"] = "kept"
        found["backbone"] = str(start)
    return found


def updated(data: Path, name: str, update: str, seed: int, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A line's name and its numbers, of one seed."""
    before, after = UPDATES[update]
    after = after | {"validation": DATA[name]["held_out"]}
    labelfx.train(config(data, name, seed, before), folder / "old")
    for how, start in (("tuned from the old one", folder / "old"), ("trained afresh", None)):
        new = folder / how.split()[0]
        labelfx.train(config(data, name, seed, after, start), new)
        for kind in ("linear", "fisher") if start else ("linear",):
            curve = folder / f"{new.name}_{kind}"
            runs: Any = (folder / "old", new)
            at_new = labelfx.derive("interpolate", runs, curve, kind=kind, weight=0.0, curve=WEIGHTS)
            rows = configs.derivation(curve)["curve"]
            if kind == "linear":
                yield how, flips(at_new) | {"weight": 0.0}
            free = [row["weight"] for row in rows if row["accuracy"] >= rows[0]["accuracy"]]
            chosen = max(free) if start else 0.5
            out = folder / f"{new.name}_{kind}_at"
            found = labelfx.derive("interpolate", runs, out, kind=kind, weight=chosen, curve=0)
            label = f"{how}, {kind} interpolation" + ("" if start else " halfway")
            yield label, flips(found) | {"weight": chosen}


def flips(results: dict[str, Any]) -> dict[str, Any]:
    found = results["metrics"]["negative_flips"]
    return {key: found[key] for key in ("old_accuracy", "accuracy", "nfr", "relative_nfr")} | {
        "commit": results["commit"]
    }


def forgetting(data: Path, name: str, seed: int, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Accuracy on true labels of networks that were told wrong ones."""
    labels = {"name": "all_labels", "weak": WRONG}
    wrong = labelfx.train(config(data, name, seed, labels), folder / "wrong")
    clean = labelfx.train(config(data, name, seed, labels | {"weak": None}), folder / "clean")
    yield "true labels", accuracy(clean)
    yield "a fifth of the labels wrong", accuracy(wrong)
    view = Finished(folder / "wrong").data[1]
    np.save(folder / "rows.npy", np.setdiff1d(view.rows, np.flatnonzero(view.split.columns["flagged"])))
    kept = {"name": "file", "path": str(folder / "rows.npy"), "weak": WRONG}
    yield "trained without the known ones", accuracy(labelfx.train(config(data, name, seed, kept), folder / "without"))
    for selection in SELECTIONS:
        out = folder / f"dampened_{selection:g}"
        found = labelfx.derive("dampen", [folder / "wrong"], out, rows="", selection=selection, dampening=1.0)
        yield f"dampened, selection {selection:g}", accuracy(found)


def accuracy(results: dict[str, Any]) -> dict[str, Any]:
    return {"accuracy": results["metrics"]["head"]["accuracy"], "commit": results["commit"]}


def run(data: Path, workdir: Path, seeds: range) -> None:
    """What has no results yet, one data set and seed after the other; the files after each table."""
    path = HERE / "results.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in DATA:
        for seed in seeds:
            for table in (*UPDATES, "forgetting"):
                lines = found.setdefault(f"{name}: {table}", {})
                if any(str(seed) in values for values in lines.values()):
                    continue
                folder = workdir / name / table.replace(" ", "_") / f"{seed}"
                made = (
                    forgetting(data, name, seed, folder)
                    if table == "forgetting"
                    else updated(data, name, table, seed, folder)
                )
                for line, values in list(made):
                    lines.setdefault(line, {})[str(seed)] = values
                HERE.mkdir(exist_ok=True)
                configs.write_text(path, json.dumps(found, indent=1) + "\n")
                configs.write_text(HERE / "README.md", page(found))


COLUMNS = {"accuracy": 100, "old_accuracy": 100, "nfr": 100, "relative_nfr": 1, "weight": 1}


def page(found: dict[str, dict[str, dict[str, dict[str, Any]]]]) -> str:
    """The results as Markdown."""
    parts = [
        "# What an update breaks, and what can be forgotten\n",
        "`python -m experiments.updates`: networks of one hidden layer; mean and standard deviation over paired seeds"
        " on the test split, accuracy and negative flips (the old network right, the new one wrong) in %. `weight` is"
        " that of the old network: the largest that costs no accuracy on rows which the new one holds out (of a fifth"
        " of them the old one may know the label), or 0.5 where the new network was trained afresh. A fifth of the"
        " labels is wrong where something is to be forgotten, and a tenth of these is known.\n",
    ]
    for table, lines in found.items():
        columns = [name for name in COLUMNS if any(name in v for seeds in lines.values() for v in seeds.values())]
        parts.append(f"## {table}\n\n|  | {' | '.join(columns)} | seeds |\n| --- |{' ---: |' * (len(columns) + 1)}")
        for line, seeds in lines.items():
            cells = [_cell([values[name] for values in seeds.values()], COLUMNS[name]) for name in columns]
            parts.append(f"| {line} | {' | '.join(cells)} | {len(seeds)} |")
        parts.append("")
    commits = sorted(
        {str(v["commit"])[:9] for lines in found.values() for seeds in lines.values() for v in seeds.values()}
    )
    return "\n".join([*parts, f"At commit {', '.join(commits)}."]) + "\n"


def _cell(values: list[float], scale: float) -> str:
    spread = f" ± {scale * statistics.stdev(values):.2f}" if len(values) > 1 and statistics.stdev(values) else ""
    return f"{scale * statistics.fmean(values):.2f}{spread}"


def main(values: Any) -> None:
    run(Path(values.data), Path(values.workdir), range(values.first_seed, values.first_seed + values.seeds))


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 3, "how many seeds")
    command.run(main, config=False, strings={"data": "the folder of the data sets", "workdir": "of the runs"})
