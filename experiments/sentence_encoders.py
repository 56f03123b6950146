"""Sentence encoders from files: published numbers met, and what they are worth with few labels.

    python -m experiments.sentence_encoders --data=DIR --encoders=DIR [--first_seed=0 --seeds=3]

`--data` holds sts, sick2014, banking77 and clinc150; `--encoders` a folder each for minilm (all-MiniLM-L6-v2, with its
config.json, tokenizer.json, modules.json and 1_Pooling) and wordllama (l2_supercat_256, with its tokenizer.json).
What trains comes last, as it is dearer: minutes of processor time for each number of MiniLM. Started again, the command
goes on where it was; what is finished is in `experiments/sentence_encoders/results.json` and, as tables, in `README.md`
beside it.
"""

import functools
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import labelfx
from labelfx import config as configs
from labelfx.config import command
from labelfx.data import Dataset, sources
from labelfx.data.labels import per_class
from labelfx.evals import features, text
from labelfx.evals.classification import linear_probe
from labelfx.loop.results import commit
from labelfx.models import Model, from_linen, pretrained

HERE = Path(__file__).parent / "sentence_encoders"
ENCODERS = ("minilm", "wordllama")
FLOOR = "TF-IDF"
TUNED, SCRATCH = "minilm_tuned", "mean_pool"  # what trains
ROWS = {
    "minilm": "MiniLM",
    TUNED: "MiniLM, fine-tuned",
    "wordllama": "WordLlama",
    SCRATCH: "mean of token vectors, from nothing",
    FLOOR: FLOOR,
}
SEEN = 24  # tokens of a text in training and its test: of CLINC150 99 % have no more, of BANKING77 85 %
STEPS = {1: 40, 4: 80, 16: 160}  # of fine-tuning by labels a class
RATES = {"head/": 1e-2, "": 1e-4}  # by path; chosen at 4 a class of BANKING77 on a draw that is not in the table
LEARNT = {"vocab_size": 8192, "max_length": 128}  # of the floor's tokens
LENGTHS = (
    8,
    12,
    16,
    24,
    32,
    48,
    64,
    128,
)  # a text is encoded at the first that holds it: padding changes nothing but the time
BUDGETS = (1, 4, 16)
SIMILARITY: dict[str, Callable[..., Dataset]] = {
    "sts": lambda root, **tokens: sources.sts(data_dir=str(root / "sts"), **tokens),
    "sick": lambda root, **tokens: sources.sick(data_dir=str(root / "sick2014"), split="all", **tokens),
}
CLASSES: dict[str, dict[str, Any]] = {
    "BANKING77": {"name": "banking77"},
    "CLINC150": {"name": "clinc150", "variant": "full", "split": "test", "out_of_scope": False},
}
# Of all-MiniLM-L6-v2, cosine, in %; 2014 is not in the same place.
PUBLISHED = {"2012": 72.37, "2013": 80.60, "2014": 75.6, "2015": 85.39, "2016": 78.99, "all": 77.58}
SAID = (
    "Published are MTEB's of all-MiniLM-L6-v2 at 8b3219a, by cosine (github.com/embeddings-benchmark/results); 2014 is"
    " that of the model card of jinaai/jina-embedding-s-en-v1, to three digits. Their 2012 has the 750 pairs of MSRvid"
    " too, which `sts` lacks for their licence: that column is not comparable. SICK is all 9,927 pairs, as there."
)


def data_of(source: str, root: Path, tokens: dict[str, Any]) -> dict[str, Any]:
    """`config.data` of one of `CLASSES`."""
    return {**CLASSES[source], "data_dir": str(root / CLASSES[source]["name"]), **tokens}


def encoder(folder: Path) -> tuple[Model, dict[str, Any], dict[str, Any]]:
    """The network, its variables, and what a source needs to give its tokens."""
    found = pretrained.read(folder)
    print(f"{folder.name}: {found.said}", flush=True)
    network = pretrained.network(found.description, norm="stored", norm_groups=1, outputs="features", dtype=None)
    tokens = {"vocab_size": found.description["architecture"]["vocab_size"], "tokenizer": str(folder)}
    return from_linen(network), found.weights(), tokens | {"max_length": LENGTHS[-1]}


def encoded(model: Model, variables: Any, ids: np.ndarray) -> np.ndarray:
    """Features float32 [N, F] of token ids int32 [N, L], each text once."""
    ids, again = np.unique(ids, axis=0, return_inverse=True)
    lengths = (ids > 0).sum(1)
    found, shortest = [], 0
    for longest in LENGTHS:
        rows = np.flatnonzero((shortest < lengths) & (lengths <= longest))
        found.append((rows, features(model, variables, ids[rows, :longest]) if len(rows) else None))
        shortest = longest
    width = next(part.shape[1] for _, part in found if part is not None)
    whole = np.zeros((len(ids), width), np.float32)
    for rows, part in found:
        whole[rows] = 0 if part is None else part
    return whole[again]


def few_labels(
    data: Dataset, embed: Callable[[Any], Any], draws: list[tuple[int, int]], floor: bool
) -> Iterator[float]:
    """Accuracy for each of the draws, of so many labels a class by a seed: the same texts for all encoders."""
    assert data.test is not None
    labels, classes = data.train.labels, len(data.class_names)
    drawn = [per_class(labels, np.random.default_rng(seed), k=k) for k, seed in draws]
    rows = np.unique(np.concatenate(drawn))
    train, test = embed(data.train.inputs[rows]), embed(data.test.inputs)
    probe: Any = text.tfidf_probe if floor else linear_probe
    for each in drawn:
        own = train[np.searchsorted(rows, each)]
        yield probe(own, labels[each], test, data.test.labels, classes)["accuracy"]


def trained(name: str, data: dict[str, Any], file: str, k: int, seed: int) -> float:
    """Accuracy of what a run trains on the draw that `few_labels` takes: MiniLM with a rate of its own, or a mean of
    token vectors as in the recipe `own_sentences`."""
    changes: dict[str, Any] = {"data": data | {"max_length": SEEN}, "labels": {"name": "per_class", "k": k}}
    changes |= {"seed": seed, "label_seed": seed, "data_seed": seed, "evals": {"head": {}}}
    recipe = "own_sentences"
    if name == TUNED:
        recipe = "finetune_pretrained"
        adamw = labelfx.recipe(recipe)["optimizer"]["optimizer"]
        rates = tuple(adamw | {"learning_rate": rate} for rate in RATES.values())
        changes |= {"optimizer": {"name": "by_path", "paths": tuple(RATES), "optimizers": rates}}
        changes |= {"model.file": file, "model.image_size": 0, "method.augment": {"name": "identity"}}
        changes |= {"steps": STEPS[k]}
    with tempfile.TemporaryDirectory() as folder:
        return labelfx.train(labelfx.recipe(recipe, changes), folder)["metrics"]["head"]["accuracy"]


def run(data_dir: Path, encoders: Path, seeds: range) -> None:
    """What has no results yet, one encoder and data set after the other; the files after each number."""
    path = HERE / "results.json"
    found = json.loads(path.read_text()) if path.exists() else {}

    def keep(entry: dict[str, Any]) -> None:
        entry["commit"] = commit()
        HERE.mkdir(exist_ok=True)
        configs.write_text(path, json.dumps(found, indent=1) + "\n")
        configs.write_text(HERE / "README.md", page(found))

    for name in (FLOOR, *ENCODERS):
        model, variables, tokens = encoder(encoders / name) if name in ENCODERS else (None, None, LEARNT)
        embed = functools.partial(encoded, model, variables) if model else lambda ids: ids
        for source, read in SIMILARITY.items():
            entry = found.setdefault(source, {}).setdefault(name, {})
            if not entry:
                data = read(data_dir, **tokens)
                assert data.test is not None
                test, judged = embed(data.test.inputs), data.side["judgements"]
                floor = functools.partial(text.tfidf, data.train.inputs, measure="spearman")
                entry |= (text.spearman if model else floor)(test, judged)
                keep(entry)
        for source in CLASSES:
            entry = found.setdefault(source, {}).setdefault(name, {})
            draws = [(k, seed) for seed in seeds for k in BUDGETS if str(seed) not in entry.get(str(k), {})]
            if draws:
                data = configs.build(configs.DATA, data_of(source, data_dir, tokens))
                accuracies = few_labels(data, embed, draws, model is None)
                for (k, seed), accuracy in zip(draws, accuracies, strict=True):
                    entry.setdefault(str(k), {})[str(seed)] = accuracy
                    keep(entry)
    file = encoders / "minilm"
    pieces = {"vocab_size": pretrained.read(file).description["architecture"]["vocab_size"], "tokenizer": str(file)}
    for seed, source, name, k in itertools.product(seeds, CLASSES, (TUNED, SCRATCH), BUDGETS):
        entry = found.setdefault(source, {}).setdefault(name, {})
        if str(seed) not in entry.get(str(k), {}):
            how = data_of(source, data_dir, pieces if name == TUNED else LEARNT)
            entry.setdefault(str(k), {})[str(seed)] = trained(name, how, str(file), k, seed)
            keep(entry)


def page(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The results as Markdown."""
    parts = [
        "# Sentence encoders from files\n",
        "`python -m experiments.sentence_encoders`, all of it by labelfx, without torch or transformers.\n",
        "## Similarity\n",
        "Spearman's correlation of cosines with human judgements, in %: all pairs of a year together.\n",
        f"|  | {' | '.join(name.replace('all', 'SICK') for name in PUBLISHED)} |",
        "| --- |" + " ---: |" * len(PUBLISHED),
        f"| MiniLM, published | {' | '.join(f'{value:.2f}' for value in PUBLISHED.values())} |",
    ]
    for key in ("minilm", "wordllama", FLOOR):
        values = {task: value for source in SIMILARITY for task, value in found.get(source, {}).get(key, {}).items()}
        cells = [f"{100 * values[task]:.2f}" if task in values else "" for task in PUBLISHED]
        parts.append(f"| {ROWS[key]} | {' | '.join(cells)} |")
    parts += [f"\n{SAID}\n", "## Few labels\n"]
    parts.append(
        "Accuracy on the test set in %, mean and standard deviation over draws of the labelled texts, the same for all:"
        " `linear_probe` of frozen features, `tfidf_probe` of TF-IDF. Below 5 labels a class the former's"
        " regularisation is fixed, at a value that was chosen on images. What trains sees"
        f" {SEEN} tokens of a text. MiniLM is fine-tuned by AdamW, {', '.join(map(str, STEPS.values()))} steps of 32"
        f" texts, the head at a rate of {RATES['head/']:g}, the rest at {RATES['']:g}: chosen at 4 labels a class of"
        " BANKING77 on a draw of its own. The mean of token vectors is the recipe `own_sentences`.\n"
    )
    columns = [(source, str(k)) for source in CLASSES for k in BUDGETS]
    parts.append(f"| labels a class | {' | '.join(f'{source}, {k}' for source, k in columns)} |")
    parts.append("| --- |" + " ---: |" * len(columns))
    for key, name in ROWS.items():
        cells = [_cell([*found.get(source, {}).get(key, {}).get(k, {}).values()]) for source, k in columns]
        parts.append(f"| {name} | {' | '.join(cells)} |")
    entries = [entry for source in found.values() for entry in source.values() if entry]
    draws = {len(entry[str(k)]) for entry in entries for k in BUDGETS if str(k) in entry}
    commits = sorted({str(entry["commit"])[:9] for entry in entries})
    return "\n".join([*parts, f"\n{', '.join(map(str, sorted(draws)))} draws; at commit {', '.join(commits)}."]) + "\n"


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


def main(values: Any) -> None:
    run(Path(values.data), Path(values.encoders), range(values.first_seed, values.first_seed + values.seeds))


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the draws")
    flags.DEFINE_integer("seeds", 3, "how many draws")
    strings = {"data": "the folder of the data sets", "encoders": "the folder of the encoders' folders"}
    command.run(main, config=False, strings=strings)
