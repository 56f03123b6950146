"""How many labels does each strategy of `labelfx.suggest` save against rows drawn uniformly, on frozen features?

    python -m experiments.suggest --set=digits --data=DIR --encoder=pixels --workdir=DIR [--first_seed=0 --seeds=8]

`--encoder` is `pixels` or whatever `labelfx.load` takes; its features of at most 3,000 training and 3,000 test rows,
evenly spaced, are computed once and kept in `--workdir`. Of these training rows a strategy has 10, 20, 40 and then 100
labelled in all, at most 20 at once; logistic regression on their features is tested. What goes by probabilities starts
from the ten rows that `uniform` draws with the same seed. `balanced` draws as many rows of every class, which nobody
can do who has no labels yet. `--data` holds the data sets, each in the folder of its name.

Started again, the command goes on where it was; what is finished is written to `experiments/suggest/SET_ENCODER.json`,
and all of these to `experiments/suggest/README.md`.
"""

import functools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError, command
from labelfx.data import Split, sources
from labelfx.data.decode import fitted
from labelfx.finished.encoder import MAX_LENGTH
from labelfx.labels import queries
from labelfx.labels.evidence import of_features
from labelfx.loop.results import commit
from labelfx.models.pretrained import described
from labelfx.reports.efficiency import labels_saved
from labelfx.reports.figures import Line, Page, alone, lines, to_picture
from labelfx.reports.tables import Draw, Row

HERE = Path(__file__).parent / "suggest"
SETS = {
    "digits": lambda data, encoder: sources.digits(),
    "fashion_mnist": lambda data, encoder: sources.fashion_mnist(data_dir=str(data / "fashion_mnist")),
    "cifar10": lambda data, encoder: sources.cifar10(data_dir=str(data / "cifar10")),
    "banking77": lambda data, encoder: sources.banking77(
        data_dir=str(data / "banking77"),
        tokenizer=encoder,
        vocab_size=described(encoder)["architecture"]["vocab_size"],
        max_length=MAX_LENGTH,
    ),
}
BUDGETS = (10, 20, 40, 100)
BATCH = 20  # labels that are asked for at once, at most
MOST = 3000
BALANCED = "balanced (no strategy)"
DRAWN = ("uniform", BALANCED, "typiclust", "dropquery")  # in the picture
STRATEGIES = ["uniform", BALANCED, *"typiclust probcover k_centre entropy margin badge dropquery clue".split()]


def features(name: str, data: Path, encoder: str, workdir: Path) -> dict[str, np.ndarray]:
    """`train` and `test` float32 [N, F], `train_labels` and `test_labels` int32 [N]."""
    path = workdir / f"{titled(name, encoder)}.npz"
    if not path.exists():
        dataset = SETS[name](data, encoder)
        encode = _pixels if encoder == "pixels" else functools.partial(_encoded, labelfx.load(encoder))
        found: dict[str, Any] = {}
        for part in ("train", "test"):
            split: Split = getattr(dataset, part)
            rows = np.linspace(0, len(split.labels) - 1, min(len(split.labels), MOST)).astype(np.int64)
            found |= {part: encode(split.inputs[rows]), f"{part}_labels": split.labels[rows]}
        configs.make_folder(workdir)
        with configs.replacing(path) as file:
            np.savez(file, **found)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _encoded(encoder: Any, images: np.ndarray) -> np.ndarray:
    """Features of images, made as large as those that the encoder was trained on."""
    if images.shape[1:] == encoder.shape:  # texts too
        return encoder(images)
    parts = (images[start : start + 256] for start in range(0, len(images), 256))
    resized = (np.stack([fitted(to_picture(image), encoder.shape) for image in part]) for part in parts)
    return np.concatenate([encoder(part) for part in resized])


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def titled(name: str, encoder: str) -> str:
    return f"{name}_{Path(encoder).stem}"


def rounds(strategy: str, found: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Accuracy at each budget, and the seconds that choosing took in all."""
    x, label, seconds = found["train"], found["train_labels"], 0.0
    rng = np.random.default_rng(seed)
    told, accuracy = np.empty(0, np.int64), {}
    for budget in BUDGETS:
        if strategy == BALANCED:
            told = _balanced(label, budget, seed)
        while len(told) < budget:
            query = configs.build(configs.QUERIES, {"name": strategy, **queries.PUBLISHED.get(strategy, {})})
            left, count = np.setdiff1d(np.arange(len(x)), told), min(BATCH, budget - len(told))
            begin = time.perf_counter()
            told = np.concatenate([told, queries.next_batch(query, x, label, told, left, count, rng)])
            seconds += time.perf_counter() - begin
        accuracy[str(budget)] = tested(found, told)
    return {"accuracy": accuracy, "seconds": seconds, "commit": commit()}


def _balanced(label: np.ndarray, budget: int, seed: int) -> np.ndarray:
    rng, classes = np.random.default_rng(seed), np.unique(label)
    drawn = [rng.permutation(np.flatnonzero(label == c)) for c in classes]
    order = rng.permutation(len(classes))  # whose turn it is where the budget is no multiple of the classes
    turns = [drawn[c][i] for i in range(max(map(len, drawn))) for c in order if i < len(drawn[c])]
    return np.array(turns[:budget])


def tested(found: dict[str, np.ndarray], told: np.ndarray) -> float:
    """The accuracy on the test rows of logistic regression on these training rows."""
    label = found["train_labels"][told]
    classify = of_features(found["train"], told, label).classify
    taken = label[:1] if classify is None else np.unique(label)[classify(found["test"]).argmax(1)]
    return float(np.mean(taken == found["test_labels"]))


def run(name: str, data: Path, encoder: str, workdir: Path, seeds: range) -> None:
    """What has no result yet, one seed of all strategies after the other; the file of the table after each."""
    path, found = HERE / f"{titled(name, encoder)}.json", features(name, data, encoder, workdir)
    done = json.loads(path.read_text()) if path.exists() else {}
    for seed in seeds:
        for strategy in STRATEGIES:
            if str(seed) not in done.setdefault(strategy, {}):
                done[strategy][str(seed)] = rounds(strategy, found, seed)
                HERE.mkdir(exist_ok=True)
                configs.write_text(path, json.dumps(done, indent=1) + "\n")
                configs.write_text(HERE / "README.md", page())
        configs.write_text(path.with_suffix(".svg"), picture(done))


def picture(done: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Accuracy over the number of labels, of `DRAWN`, as SVG; bands are one standard deviation."""
    found = []
    for strategy in (each for each in DRAWN if each in done):
        of = [[100 * seed["accuracy"][str(budget)] for seed in done[strategy].values()] for budget in BUDGETS]
        sd = [statistics.stdev(each) for each in of] if len(of[0]) > 1 else None
        found.append(Line(strategy, BUDGETS, list(map(statistics.fmean, of)), sd, strategy == BALANCED))
    return alone(lines(found, "labels in all", "accuracy, %", log=True, full=True))


def page() -> str:
    """All tables that have a file, as Markdown."""
    intro = (
        "Accuracy in % of logistic regression on frozen features, mean and standard deviation over seeds, where a "
        "strategy has chosen the labelled rows, 10 labels in all to 100, at most 20 at once; seconds are those of "
        f"choosing them. {BALANCED} draws as many rows of every class: the usual protocol of papers, which nobody can "
        "follow before labelling. `python -m experiments.suggest` makes this page."
    )
    parts = ["# Which rows to label: strategies against a uniform draw", intro]
    for path in sorted(HERE.glob("*.json")):
        done: dict[str, dict[str, dict[str, Any]]] = json.loads(path.read_text())
        rows = []
        lines = [["", *(f"{budget} labels" for budget in BUDGETS), "seeds", "seconds"]]
        for strategy, seeds in done.items():
            row = Row(strategy, "linear_probe", "accuracy")
            for seed, values in seeds.items():
                for budget, accuracy in values["accuracy"].items():
                    row.results[int(budget)][Draw(int(seed), int(seed), int(seed), "")].append(accuracy)
            rows.append(row)
            taken = statistics.fmean(values["seconds"] for values in seeds.values())
            lines.append([strategy, *(_cell(row.runs(budget)) for budget in BUDGETS), str(len(seeds)), f"{taken:.1f}"])
        table = Page("")
        table.table(lines)
        labels_saved(table, rows, "uniform")
        heading, reading, *saved = table.markdown[2:]
        saved = saved if reading in parts else [reading, *saved]
        commits = sorted({str(values["commit"])[:9] for seeds in done.values() for values in seeds.values()})
        parts += [
            f"## {path.stem}",
            f"![accuracy over the number of labels]({path.stem}.svg)",
            table.markdown[1],
            f"#{heading}",
            *saved,
            f"At commit {', '.join(commits)}.",
        ]
    return "\n\n".join(parts).replace(", linear_probe", "") + "\n"


def _cell(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


def main(values: Any) -> None:
    if values.set not in SETS:
        raise ConfigError(f"--set={values.set}: {configs.nearest(values.set, SETS)}")
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    run(values.set, Path(values.data), values.encoder, Path(values.workdir), seeds)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 8, "how many seeds")
    command.run(
        main,
        config=False,
        strings={
            "set": f"one of {', '.join(SETS)}",
            "data": "the folder of the data sets",
            "encoder": "pixels, or what labelfx.load takes",
            "workdir": "for features",
        },
    )
