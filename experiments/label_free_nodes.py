"""LLM-GNN without the language model: which nodes of Cora to ask an annotator for, and which answers to keep.

    python -m experiments.label_free_nodes --data=DIR --workdir=DIR [--first_seed=0 --seeds=5]

The annotator is simulated, for Cora's recorded answers are in another order of nodes than the public files: it knows
some nodes, and names a class by a confusion matrix for the others. What is asked and answered is written as
`votes.npz`, as an annotator's would be, and read by `labels.weak=recorded`. Started again, the command goes on where it
was; what is finished is in `experiments/label_free_nodes/results.json` and, as a table, in `README.md` beside it.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import labelfx
from experiments.kinds import replaced
from labelfx import config as configs
from labelfx.config import command
from labelfx.data import Dataset
from labelfx.data.sources import planetoid
from labelfx.labels import choose

HERE = Path(__file__).parent / "label_free_nodes"
ASKED, KEPT = 140, 98  # public code drops 0.3 of what was asked
EASY, HARD = 0.9, 0.5  # how often it knows the most and the least typical of nodes
ANNOTATORS = {
    "knows typical nodes": "it knows a node with a probability that rises with the rank of its density from 0.5 to 0.9,"
    " as the paper finds of language models, and its confidence is that probability, give or take 0.1",
    "knows any node alike": "it knows any node with probability 0.7; its confidence is 0.7, give or take 0.1, and says"
    " nothing",
}
CHOICES = ("random", "PageRank", "density and PageRank")
PUBLISHED = "the 140 published labels"


def typical(data: Dataset) -> np.ndarray:
    """The density of every node, its words scaled to unit length, with as many clusters as classes."""
    words = data.side["graph"].features.astype(np.float32)
    words /= np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1)
    return choose.density(words, len(data.class_names), np.random.default_rng(0))


def answers(data: Dataset, ranks: np.ndarray, annotator: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the annotator would say of every training row, asked or not, and how sure it would be.

    A node that it does not know it takes for one of the two classes whose words are most like those of the right one:
    the rows of its confusion matrix."""
    rng = np.random.default_rng([seed, 79])
    label = data.train.labels
    knows = np.full(len(label), 0.7) if annotator == "knows any node alike" else HARD + (EASY - HARD) * ranks
    confidence = (knows + rng.uniform(-0.1, 0.1, len(label))).clip(0, 1)
    neighbours = nearest_classes(data)
    mistaken = neighbours[label, rng.integers(0, 2, len(label))]
    return np.where(rng.random(len(label)) < knows, label, mistaken), confidence


def nearest_classes(data: Dataset) -> np.ndarray:
    """Of each class the two others that the words of its nodes are most like: int [C, 2]."""
    words = data.side["graph"].features[data.train.inputs[:, 0]]
    means = np.stack([words[data.train.labels == c].mean(0) for c in range(len(data.class_names))])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    alike = means @ means.T
    np.fill_diagonal(alike, -1)
    return np.argsort(-alike, axis=1)[:, :2]


def chosen(data: Dataset, how: str, density: np.ndarray, seed: int) -> np.ndarray:
    """The training rows that are asked for."""
    nodes = data.train.inputs[:, 0]
    central = choose.pagerank(data.side["graph"], damping=0.85)[nodes]
    score = {
        "random": np.random.default_rng([seed, 80]).random(len(nodes)),
        "PageRank": central,
        "density and PageRank": choose.rank_mean((density[nodes], central), (0.5, 0.5)),
    }[how]
    return np.sort(np.argsort(-score, kind="stable")[:ASKED])


def run(data_dir: Path, workdir: Path, seeds: range) -> None:
    """What has no results yet, one seed of all lines after the other; the files after each."""
    path = HERE / "results.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    data = planetoid("cora", data_dir=str(data_dir / "planetoid"))
    density = typical(data)
    ranks = choose.rank_mean((density[data.train.inputs[:, 0]],), (1,))
    for seed in seeds:
        lines = [(PUBLISHED, "", False)]
        lines += [(annotator, how, kept) for annotator in ANNOTATORS for how in CHOICES for kept in (False, True)]
        for annotator, how, kept in lines:
            key = " | ".join((annotator, how, f"{KEPT} kept, weighted" if kept else "all") if how else (annotator,))
            if str(seed) in found.get(key, {}):
                continue
            folder = workdir / key.replace(" | ", "_").replace(" ", "_") / f"{seed}"
            changes: dict[str, Any] = {"data.data_dir": str(data_dir / "planetoid"), "evals": {"head": {}}}
            about = {"right": 1.0, "classes": float(len(data.class_names))}
            if how:
                vote, confidence = answers(data, ranks, annotator, seed)
                rows = chosen(data, how, density, seed)
                rows = rows[choose.diverse_filter(vote[rows], confidence[rows], KEPT)] if kept else rows
                about = {"right": float(np.mean(vote[rows] == data.train.labels[rows]))}
                about["classes"] = float(len(np.unique(vote[rows])))
                folder.mkdir(parents=True, exist_ok=True)
                sure = confidence[rows] if kept else np.full(len(rows), np.nan)
                np.savez(
                    folder / "votes.npz", row=rows, judge=np.zeros(len(rows), int), vote=vote[rows], confidence=sure
                )
                np.save(folder / "rows.npy", rows)
                weak = {"name": "recorded", "path": str(folder / "votes.npz")}
                changes["labels"] = {"name": "file", "path": str(folder / "rows.npy"), "weak": weak}
                changes["batch.labelled"] = len(rows)
            config = replaced("gcn", changes) | {"name": key, "seed": seed, "label_seed": seed, "data_seed": seed}
            results = labelfx.train(config, folder / "run")
            values = {"accuracy": results["metrics"]["head"]["accuracy"], **about}
            values |= {"seconds": results["training"]["seconds"], "commit": results["commit"]}
            found.setdefault(key, {})[str(seed)] = values
            HERE.mkdir(exist_ok=True)
            configs.write_text(path, json.dumps(found, indent=1) + "\n")
            configs.write_text(HERE / "README.md", page(found))


def page(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The results as Markdown."""
    parts = [
        f"# {ASKED} labels of Cora by a simulated annotator\n",
        "`python -m experiments.label_free_nodes`: accuracy of the recipe `gcn` on the 1,000 test nodes, share of right"
        " answers and number of classes among those trained on; mean and standard deviation over seeds, shares in %. A"
        " node that the annotator does not know it takes for one of the two classes whose words are most like those of"
        " the right one.\n",
        *(f"- {name}: {about}." for name, about in ANNOTATORS.items()),
        f"\nOf {ASKED} answers {KEPT} are kept by confidence and diversity, and weighted by their confidence.\n",
        "| annotator | choice | answers | accuracy | right | classes | seeds | seconds |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, seeds in found.items():
        first = (key.split(" | ") + ["", ""])[:3]
        cells = [_cell([values[name] for values in seeds.values()], scale) for name, scale in COLUMNS.items()]
        seconds = statistics.fmean(values["seconds"] for values in seeds.values())
        parts.append(f"| {' | '.join((*first, *cells))} | {len(seeds)} | {seconds:.0f} |")
    commits = sorted({str(values["commit"])[:9] for seeds in found.values() for values in seeds.values()})
    return "\n".join([*parts, f"\nAt commit {', '.join(commits)}."]) + "\n"


COLUMNS = {"accuracy": 100, "right": 100, "classes": 1}


def _cell(values: list[float], scale: float) -> str:
    spread = f" ± {scale * statistics.stdev(values):.1f}" if len(values) > 1 and statistics.stdev(values) else ""
    return f"{scale * statistics.fmean(values):.1f}{spread}"


def main(values: Any) -> None:
    run(Path(values.data), Path(values.workdir), range(values.first_seed, values.first_seed + values.seeds))


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 5, "how many seeds")
    command.run(main, config=False, strings={"data": "the folder of the data sets", "workdir": "of the runs"})
