"""What it costs to merge two networks that were trained apart, by what is done before their weights are averaged.

    python -m experiments.merging --data=DIR --workdir=DIR [--nets=mlp,conv3] [--first_seed=0 --seeds=3]

Two tables on digits and Fashion-MNIST: networks of two seeds that know all classes, and one of half of the classes with
one of the others. Pairs are paired over lines. Started again, the command goes on where it was. What is finished is
written to `experiments/merging/results.json`, and the tables to `experiments/merging/README.md`. `--data` holds the
folder `fashion_mnist`.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from experiments.kinds import replaced
from labelfx import config as configs
from labelfx.config import command

HERE = Path(__file__).parent / "merging"
NETS: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "hidden": (512,), "dtype": "float32"},
    "conv3": {"name": "conv3", "width": 16, "dtype": "float32"},
}
HALVES: dict[str, dict[str, Any]] = {
    "one half": {"name": "classes", "classes": (0, 1, 2, 3, 4)},
    "the other": {"name": "classes", "classes": (5, 6, 7, 8, 9)},
}
MATCH: dict[str, Any] = {"weight": 0.5, "curve": 11, "gamma": 0.3}
AVERAGE: dict[str, Any] = {"kind": "linear", "weight": 0.5, "curve": 0}
KEPT = (0.0, 0.25, 0.5, 1.0)


def trained(net: str, source: dict[str, Any], labels: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "data": source,
        "labels": labels,
        "model": NETS[net],
        "method.augment": {"name": "identity"},
        "batch.labelled": 128,
        "steps": 500,
        "evals": {"head": {}},
    }
    return labelfx.train(replaced("supervised", changes) | {"seed": seed, "name": f"{net}_{seed}"}, folder)


def of_two_seeds(net: str, source: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Accuracies in % of either network and of their merged ones; barriers of the test loss between them, in nats, and
    how far layers are aligned."""
    pair = [folder / "a", folder / "b"]
    apart = [trained(net, source, {"name": "all_labels"}, 2 * seed + i, place) for i, place in enumerate(pair)]
    averaged = labelfx.derive("interpolate", pair, folder / "averaged", **AVERAGE)
    matched = labelfx.derive("match", pair, folder / "matched", **MATCH)
    said = json.loads((folder / "matched" / "derived.json").read_text())
    (barriers,), layers = said["barriers"], said["alignment"]
    return {
        "apart": statistics.fmean(map(accuracy, apart)),
        "averaged": accuracy(averaged),
        "matched": accuracy(matched),
        **{f"barrier {name}": value for name, value in barriers.items()},
        **{f"R {name}": statistics.fmean(row[name] for row in layers) for name in ("unmatched", "matched")},
        "commit": matched["commit"],
    }


def of_half_the_classes(net: str, source: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Accuracies in % on all ten classes of either expert, of the mean of their weights in one order, and of
    `least_squares` with that share of the units kept apart: 1 is the ensemble by the mean of their logits."""
    pair = [folder / name for name in HALVES]
    apart = [
        trained(net, source, labels, 2 * seed + i, place)
        for i, (labels, place) in enumerate(zip(HALVES.values(), pair, strict=True))
    ]
    matched = labelfx.derive("match", pair, folder / "matched", **MATCH | {"curve": 0})
    found = {"apart": statistics.fmean(map(accuracy, apart)), "matched": accuracy(matched)}
    for keep in KEPT:
        merged = labelfx.derive("least_squares", pair, folder / f"{keep}", keep=keep, rows=2048, ridge=1e-2)
        found[f"keep {keep:g}"] = accuracy(merged)
    return found | {"commit": matched["commit"]}


def accuracy(results: dict[str, Any]) -> float:
    return 100 * results["metrics"]["head"]["accuracy"]


TABLES = {"Two seeds": of_two_seeds, "Half of the classes each": of_half_the_classes}


def run(nets: list[str], data: Path, workdir: Path, seeds: range) -> None:
    """What has no results yet, one seed of all lines after the other; the files after each."""
    sources: dict[str, dict[str, Any]] = {
        "digits": {"name": "digits"},
        "fashion_mnist": {"name": "fashion_mnist", "data_dir": str(data / "fashion_mnist")},
    }
    path = HERE / "results.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for seed in seeds:
        for source, net, (table, function) in (
            (source, net, item) for source in sources for net in nets for item in TABLES.items()
        ):
            done = found.setdefault(table, {}).setdefault(f"{source}, {net}", {})
            if str(seed) not in done:
                done[str(seed)] = function(net, sources[source], seed, workdir / table / source / net / str(seed))
                HERE.mkdir(exist_ok=True)
                configs.write_text(path, json.dumps(found, indent=1) + "\n")
                configs.write_text(HERE / "README.md", page(found))


def page(found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    parts = [
        f"# Merging networks\n\n{(__doc__ or '').splitlines()[0]} Mean and standard deviation over pairs of seeds."
    ]
    for table, lines in found.items():
        if not any(lines.values()):
            continue
        columns = [name for name in next(iter(next(iter(lines.values())).values())) if name != "commit"]
        parts.append(f"\n## {table}\n\n{' '.join((TABLES[table].__doc__ or '').split())}\n")
        parts.append(f"| | {' | '.join(columns)} | pairs |\n| --- |{' ---: |' * (len(columns) + 1)}")
        for name, seeds in lines.items():
            if seeds:
                cells = [cell([values[column] for values in seeds.values()], column) for column in columns]
                parts.append(f"| {name} | {' | '.join(cells)} | {len(seeds)} |")
        commits = sorted({values["commit"][:9] for seeds in lines.values() for values in seeds.values()})
        parts.append(f"\nAt commit {', '.join(commits)}.")
    return "\n".join(parts) + "\n"


def cell(values: list[float], column: str) -> str:
    digits = 2 if column.startswith(("barrier", "R ")) else 1
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def main(values: Any) -> None:
    nets = values.nets.split(",")
    for net in nets:
        if net not in NETS:
            raise configs.ConfigError(f"--nets={net}: {configs.nearest(net, NETS)}")
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    run(nets, Path(values.data), Path(values.workdir), seeds)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the pairs")
    flags.DEFINE_integer("seeds", 3, "how many pairs")
    flags.DEFINE_string("nets", ",".join(NETS), f"some of {', '.join(NETS)}")
    command.run(main, config=False, strings={"data": "the folder of the data sets", "workdir": "of the runs"})
