"""Which rules find hard negatives that are not false? On planted classes, where it is known.

    python -m experiments.miners --workdir=/tmp/labelfx/miners

Writes `WORKDIR/table.md`; the protocol and a reading are in `experiments/README.md`.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from labelfx.config import command, write_text
from labelfx.data import Split, miners
from labelfx.data.batches import draw
from labelfx.mining import rules
from labelfx.mining.search import top_k
from labelfx.models import Model
from labelfx.objectives.contrastive import normalise

COARSE, FINE, ROWS, DIMENSIONS = 16, 10, 20, 32
SPREAD = 0.7  # sd of fine centres round their coarse one, whose own is 1
NOISE = {"apart": 0.35, "mixed": 0.9}  # sd of rows round their fine centre
SEEDS, TUNED_ON, MINER_SEEDS = range(20), range(100, 105), range(10)
COUNTS = (20, 100)  # negatives a query
CANDIDATES = 400
BATCH, STEPS, PER_ANCHOR = 64, 50, 3  # of the batches that miners make

# Of each rule the published setting, None where there is none for these data, and what is tried on other seeds.
SETTINGS: dict[str, tuple[dict | None, list[dict]]] = {
    "uniform": ({}, []),
    "top": ({}, []),
    "simans": (
        {"a": 0.5, "b": 0.0},
        [{"a": a, "b": b} for a, b in itertools.product((30.0, 100.0, 300.0), (0.0, -0.1, -0.2, -0.3))],
    ),
    "margin_pos": (None, [{"margin": margin} for margin in (0.0, 0.05, 0.1, 0.15, 0.2)]),
    "perc_pos": ({"percentage": 0.95}, [{"percentage": share} for share in (0.9, 0.85, 0.8, 0.7, 0.6)]),
    "runner_up": (
        {"first": 0.03, "last": 0.04},
        [{"first": a, "last": b} for a, b in ((0.0, 0.02), (0.01, 0.03), (0.01, 0.06), (0.02, 0.05), (0.04, 0.06))],
    ),
    "second_cluster": (None, [{"clusters": count} for count in (16, 64, 128, 160, 320)]),
}


class Planted(NamedTuple):
    """Queries [160, D], one for each fine class, and their positives, which are not among the rows [3200, D] of the
    index; the fine class of the rows. A tenth of the rows of a query's coarse class are of its fine class: no one says
    so, and as negatives they are false."""

    queries: np.ndarray
    positives: np.ndarray
    rows: np.ndarray
    fine: np.ndarray


def planted(seed: int, noise: float) -> Planted:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(COARSE, 1, DIMENSIONS)) + SPREAD * rng.normal(size=(COARSE, FINE, DIMENSIONS))
    centres = centres.reshape(-1, DIMENSIONS)
    fine = np.repeat(np.arange(len(centres)), ROWS)

    def rows_round(centres):
        return (centres + noise * rng.normal(size=centres.shape)).astype(np.float32)

    return Planted(rows_round(centres), rows_round(centres), rows_round(centres[fine]), fine)


def selections(data: Planted, seed: int, asked: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, np.ndarray]:
    """What each (rule, settings) selects: rows of the index for each query, int [160, 100], in the order in which it
    does, so that the first 20 are what it would select of 20; -1 where it leaves fewer."""
    scores, rows = top_k(data.queries, data.rows, len(data.rows), similarity="cosine")
    positive_scores = jnp.sum(normalise(data.queries) * normalise(data.positives), axis=-1)
    chosen = {}
    for name, (rule, settings) in asked.items():
        # Rules that look past the most similar have all rows as candidates.
        count = len(data.rows) if rule in ("uniform", "second_cluster") else CANDIDATES
        found = rules.Found(data.queries, data.rows, rows[:, :count], scores[:, :count], positive_scores)
        if rule == "uniform":
            rule, settings = "simans", {"a": 0.0, "b": 0.0}
        places = getattr(rules, rule)(jax.random.key(seed), found, max(COUNTS), **settings)
        chosen[name] = np.where(places < 0, -1, np.take_along_axis(np.asarray(rows), np.asarray(places), axis=1))
    return chosen


def judge(chosen: np.ndarray, fine: np.ndarray) -> tuple[float, float]:
    """Recall of true hard negatives, those of the query's coarse class but not of its fine one, as a share of as many
    as there was room for; and the false ones among those selected (0 where nothing is)."""
    own, there = np.arange(len(chosen))[:, None], chosen >= 0
    false = there & (fine[chosen] == own)
    hard = there & ~false & (fine[chosen] // FINE == own // FINE)
    room = min(chosen.shape[1], (FINE - 1) * ROWS)
    return float(hard.sum() / (len(chosen) * room)), float(false.sum() / max(there.sum(), 1))


def compare_rules(noise: float, seeds: Iterable[int], tuned_on: Iterable[int]) -> list[list[str]]:
    """Rows of the table of rules."""

    def measure(asked, seeds):
        """Name -> for each seed, recall and share of false ones at each count."""
        results: dict[str, list[list[float]]] = {name: [] for name in asked}
        for seed in seeds:
            data = planted(seed, noise)
            for name, chosen in selections(data, seed, asked).items():
                results[name].append([x for count in COUNTS for x in judge(chosen[:, :count], data.fine)])
        return results

    asked: dict[str, tuple[str, dict]] = {}
    tried = {_name(rule, each): (rule, each) for rule, (_, grid) in SETTINGS.items() for each in grid}
    recall = {name: np.mean(values, axis=0)[0] for name, values in measure(tried, tuned_on).items()}
    for rule, (published, grid) in SETTINGS.items():
        if published is not None:
            asked[_name(rule, published) + (", published" if published else "")] = rule, published
        if grid:
            best = max((_name(rule, each) for each in grid), key=lambda name: recall[name])
            asked[best] = tried[best]
    return [[name, *map(interval, zip(*values, strict=True))] for name, values in measure(asked, seeds).items()]


def _name(rule: str, settings: Mapping[str, Any]) -> str:
    return " ".join([rule, ", ".join(f"{key} {value:g}" for key, value in settings.items())]).strip()


def compare_miners(noise: float, seeds: Iterable[int]) -> list[list[str]]:
    """Rows of the table of batches: shares of the pairs in a batch that are hard, and that are false negatives."""
    model = Model(lambda rng, x: {}, lambda variables, x, *, train: (x, {}))

    def augment(rng, x):
        return x + noise * jax.random.normal(rng, x.shape)

    def mined(rule, **settings):
        selection = functools.partial(rule, **settings)
        return miners.mined(
            model, augment=augment, candidates=CANDIDATES, negatives_per_anchor=PER_ANCHOR, selection=selection
        )

    built = {
        "uniform": miners.uniform(),
        "clusters": miners.clusters(model, clusters=COARSE * FINE),
        "ngame": miners.ngame(model, cluster_size=BATCH // 2),
        "communities, skip 0": miners.communities(model, skip=0, neighbours=100, community_size=BATCH // 2),
        "communities, skip 30": miners.communities(model, skip=30, neighbours=100, community_size=BATCH // 2),
        "mined, top": mined(rules.top),
        "mined, perc_pos 0.8": mined(rules.perc_pos, percentage=0.8),
        "curriculum, at its end": miners.curriculum(
            model, candidates=CANDIDATES, negatives_per_anchor=PER_ANCHOR, first=0.3, last=0.8, levels=6
        ),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in built}
    for seed in seeds:
        data = planted(seed, noise)
        for name, miner in built.items():
            table = {}
            if miner.refresh:
                table = miner.refresh({}, Split(data.rows, data.fine), np.random.default_rng(seed), 0.99)
            found[name].append(_pairs(miner, table, data.fine, seed))
    return [[name, *map(interval, zip(*values, strict=True))] for name, values in found.items()]


def _pairs(miner: miners.Miner, table: dict[str, np.ndarray], fine: np.ndarray, seed: int) -> tuple[float, float]:
    hard = false = 0
    for step in range(STEPS):
        drawn = draw(seed, 1, step, BATCH, np.arange(len(fine)))
        batch = fine[miner.rows(np.random.default_rng([seed, step]), drawn, table)]
        same = (batch[:, None] == batch).sum() - BATCH
        hard += (batch[:, None] // FINE == batch // FINE).sum() - BATCH - same
        false += same
    pairs = STEPS * BATCH * (BATCH - 1)
    return float(hard / pairs), float(false / pairs)


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95 % interval (Student's t), in %."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{100 * np.mean(values):.1f} +- {100 * half:.1f}"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def compare(workdir: str | Path) -> str:
    """Writes `workdir/table.md` and returns it."""
    both = [f"{what}@{count}" for count in COUNTS for what in ("recall", "false")]
    parts = []
    for name, noise in NOISE.items():
        parts += [
            f"{name}, noise {noise}: rules, {len(SEEDS)} seeds",
            markdown(["rule", *both], compare_rules(noise, SEEDS, TUNED_ON)),
            f"{name}, noise {noise}: batches, {len(MINER_SEEDS)} seeds",
            markdown(["miner", "hard pairs", "false pairs"], compare_miners(noise, MINER_SEEDS)),
        ]
    text = "\n\n".join([*parts, "in %, mean +- half of the 95 % interval over the seeds"]) + "\n"
    Path(workdir).mkdir(parents=True, exist_ok=True)
    write_text(Path(workdir) / "table.md", text)
    return text


if __name__ == "__main__":
    command.run(lambda flags: print(compare(flags.workdir), end=""), config=False)
