"""Ten images a class for a whole data set: students of Fashion-MNIST, condensed in every way that labelfx has.

    python -m experiments.condensed --data=FASHION_MNIST --workdir=DIR [--seeds=3]

The teacher is a small network that saw every label. Its students see ten images a class, or what takes as many bytes,
and what it says of them: images drawn without preference are the floor. All start from the same parameters and take as
many steps. Started again, the command goes on where it was; the table is `experiments/condensed/README.md`.
"""

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from experiments.paired import cell
from labelfx import config as configs
from labelfx.config import command
from labelfx.reports.sweep import Job

HERE = Path(__file__).parent / "condensed"
PER_CLASS, STEPS = 10, 1000
FLOOR = "sampled"
AUGMENT = {"name": "small_grey", "min_scale": 0.5, "max_rotation": 0.0, "jitter_strength": 0.5, "cutout": 0.0}
COMPENSATE = {"steps": 100, "learning_rate": 0.003, "statistics_weight": 0.05, "jitter": 1}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "sampled": ("sample", {}),
    "compensated": ("compensate", COMPENSATE),
    "lightened": ("lighten", {"rank": 8, "steps": 0, "learning_rate": 0.1}),
    "lightened, images moved": ("lighten", {"rank": 8, "steps": 100, "learning_rate": 0.003}),
}


def common(name: str, seed: int) -> dict[str, Any]:
    seeds = {"seed": seed, "label_seed": seed, "data_seed": seed}
    return {"name": name, "method.augment": AUGMENT, "steps": STEPS, "evals": {"head": {}}, "keep": 1, **seeds}


def teacher(data: dict[str, Any], folder: Path, seed: int) -> Job:
    labels = {"labels": {"name": "all_labels"}, "batch.labelled": 128, "data": data}
    return Job(folder / "teacher", labelfx.recipe("supervised", common("teacher", seed) | labels))


def students(data: dict[str, Any], folder: Path, seed: int) -> Iterator[Job]:
    """Of the labels alone, and of every condensed set, with one soft label an image but where a projector gives them
    for each view."""
    labels = {"data": data, "labels": {"name": "per_class", "k": PER_CLASS}, "batch.labelled": 40}
    yield Job(folder / "labels", labelfx.recipe("supervised", common("labels alone", seed) | labels))
    for name, (how, settings) in WAYS.items():
        file, place = folder / f"{name.replace(' ', '_').replace(',', '')}.npz", folder / "teacher"
        if not file.exists():
            labelfx.condense(how, [place] * (1 + (how == "lighten")), file, seed=seed, per_class=PER_CLASS, **settings)
        changes = common(name, seed) | {"data": {"name": f"npz:{file}"}}
        if how == "lighten":
            soft = {"name": "low_rank", "file": str(file), "encoder": str(place), "augment": AUGMENT}
            changes |= {"method.soft_labels": soft, "batch.unlabelled": 40}
        else:
            changes |= {"batch.labelled": 40, "method.mix": None}
        yield Job(folder / file.stem, labelfx.recipe("lightened" if how == "lighten" else "condensed", changes))


def run(data: Path, workdir: Path, seeds: range) -> None:
    """What has no results yet, seed by seed, and the table after each."""
    source = {"name": "fashion_mnist", "data_dir": str(data)}
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for seed in seeds:
        folder = workdir / f"seed_{seed}"
        for job in itertools.chain([teacher(source, folder, seed)], students(source, folder, seed)):
            found.setdefault(job.config["name"], {})[seed] = labelfx.train(job.config, job.folder)
        HERE.mkdir(exist_ok=True)
        configs.write_text(HERE / "README.md", page(found))


def page(found: dict[str, dict[int, dict[str, Any]]]) -> str:
    """The results as Markdown."""
    lines = ["|  | accuracy | seconds of training |", "| --- | ---: | ---: |"]
    for name, seeds in found.items():
        accuracy, floor = ({str(s): run["metrics"]["head"] for s, run in found[row].items()} for row in (name, FLOOR))
        seconds = statistics.fmean(each["training"]["seconds"] for each in seeds.values())
        lines.append(f"| {name} | {cell(accuracy, floor)} | {seconds:.0f} |")
    commits = {each["commit"][:9] for seeds in found.values() for each in seeds.values()}
    return (
        "# Ten images a class for a whole data set\n\n"
        f"`python -m experiments.condensed`: accuracy in % on Fashion-MNIST's test images. The teacher is a network of "
        f"three convolutions that saw 60,000 labels for {STEPS:,} steps; students of the same kind take as many steps "
        f"of 40 images out of {PER_CLASS} a class, or of what takes as many bytes, and what the teacher says of them; "
        f"mean and standard deviation over {len(found[FLOOR])} seeds, and in brackets paired differences to `{FLOOR}`, "
        "mean and standard error.\n\n" + "\n".join(lines) + f"\n\nAt commit {', '.join(sorted(commits))}.\n"
    )


def main(values: Any) -> None:
    run(Path(values.data), Path(values.workdir).absolute(), range(values.seeds))


if __name__ == "__main__":
    flags.DEFINE_integer("seeds", 3, "how many seeds")
    command.run(main, config=False, strings={"data": "the folder of Fashion-MNIST", "workdir": "of the runs"})
