"""A network out of finished runs' weights, without training: merged, pruned, made to forget. The command:

    python -m labelfx.derive HOW --runs=DIR,DIR... --out=DIR [--set KEY=VALUE ...]

HOW is a function of `labelfx.derived` and its settings are the keys that `python -m labelfx.list HOW` shows. DIR
becomes an ordinary workdir, so that `evaluate`, `report`, `table`, `predict`, `features` and `export` work on it:
configuration and labels are those of a parent, `derived.json` says what was done to which weights, `derived.md` has its
tables. The eval `negative_flips` compares it with the first run.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx import config as configs
from labelfx import models
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.derived import Derived, Finished, recalibrate
from labelfx.finished import weights
from labelfx.loop.asking import ASKED
from labelfx.loop.claims import claim
from labelfx.loop.mesh import products
from labelfx.loop.networks import build_model, head_of
from labelfx.loop.results import finish
from labelfx.loop.run import TOKENIZER, keep_compiled_programs


def derive(
    how: str, runs: Sequence[str | Path], out: str | Path, *, dataset: Dataset | None = None, **settings: Any
) -> dict[str, Any]:
    """The command as a function. Started again it makes the same network again.

    Args:
      runs: workdirs of finished runs, in the order that the function takes them.
      dataset: of runs whose data were arrays in memory.
      settings: the function's keyword-only parameters.

    Returns:
      What it writes to `out/results.json`.

    Raises:
      FileNotFoundError, ConfigError: as for `labelfx.load`; there is no such function or setting; the runs cannot be
        put together; `out` holds another run. One line.
    """
    part = configs.check_part(configs.DERIVED, {"name": how, **settings}, "derive")
    folder = configs.place(out)
    parents = tuple(Finished(configs.place(run), dataset) for run in runs)
    if not parents:
        raise ConfigError("--runs: none given; name the workdirs of finished runs")
    keep_compiled_programs()
    begin = time.perf_counter()
    config = parents[0].config
    derivation: dict[str, Any] = {
        "how": how,
        "settings": {key: value for key, value in part.items() if key != "name"},
        "parents": [
            {"place": str(p.place), "sha256": p.sha256, "config_hash": configs.config_hash(p.config, p.place)}
            for p in parents
        ],
    }
    derivation = json.loads(json.dumps(derivation))  # as it will be read again
    configs.make_folder(folder)
    with claim(folder), products(config.matmul_precision):
        kept = configs.derivation(folder)
        if (folder / "config.json").exists() and any(kept.get(key) != derivation[key] for key in derivation):
            raise ConfigError(f"{folder}: holds another run; use another workdir")
        rng = np.random.default_rng(config.seed)
        found: Derived = configs.build(configs.DERIVED, part, runs=parents, rng=rng)
        return _write(folder, parents[found.of], found, derivation, begin)


def _write(folder: Path, parent: Finished, found: Derived, derivation: dict[str, Any], begin: float) -> dict[str, Any]:
    """The workdir. Its configuration comes last, so that half of it is no run."""
    (folder / "results.json").unlink(missing_ok=True)
    (folder / "config.json").unlink(missing_ok=True)
    data, view = parent.data
    changes = {"name": f"{parent.config.name}_{derivation['how']}", **found.config}
    plain = {**configs.plain(parent.config), **changes}
    if plain["model"].get("frozen"):
        plain["model"] |= {"frozen": False}  # the encoder is stored with the rest
    compares = "head" in found.variables["params"] and data.task == "class" and data.test is not None
    plain["evals"] |= {"negative_flips": {}} if compares else {}
    config = configs.check(plain)
    model = build_model(config, data)
    head = {"head": head_of(config, data, view)} if "head" in found.variables["params"] else {}
    variables = recalibrate(models.stack(backbone=model, **head), found.variables, parent.images)
    weights.save(folder / "weights" / f"{len(configs.phases(config)) - 1}.safetensors", variables)
    for name in ("labels.json", ASKED, TOKENIZER, configs.OUTSIDE):
        if (path := parent.place / name).exists():
            with configs.replacing(folder / name) as file:
                file.write(path.read_bytes())
    configs.write_text(folder / configs.DERIVATION, json.dumps({**derivation, **found.said}, indent=2) + "\n")
    if tables := "\n".join(_tables(found.said)):
        configs.write_text(folder / "derived.md", tables + "\n")
    configs.write_text(folder / "config.json", json.dumps(configs.plain(config), indent=2) + "\n")
    training = {
        "steps": 0,
        "seconds": time.perf_counter() - begin,
        "images_per_second": None,
        "compilations": 0,
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"])),
    }
    return finish(config, folder, data, view, model, variables, training)


def _tables(said: Mapping[str, Any]) -> Iterator[str]:
    """Markdown of what is a list of dicts."""
    for name, rows in said.items():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            yield f"## {name}\n\n| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}"
            for row in rows:
                yield "| " + " | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m labelfx.derive", description="A network out of finished runs' weights, without training."
    )
    parser.add_argument("how", metavar="HOW", help=f"one of {', '.join(configs.names(configs.DERIVED))}")
    parser.add_argument("--runs", metavar="DIR,DIR...", required=True, help="the workdirs of finished runs")
    parser.add_argument("--out", metavar="DIR", required=True, help="the workdir to write")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", nargs="+", default=[], action="extend", help="settings of HOW, see labelfx.list"
    )
    flags = parser.parse_args()
    try:
        settings = configs.settings(flags.set, flags.how, ("how", "runs", "out", "dataset"))
        derive(flags.how, flags.runs.split(","), flags.out, **settings)
    except (OSError, ValueError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(2) from None
    print(f"saved in {flags.out}; python -m labelfx.report {flags.runs.replace(',', ' ')} {flags.out} compares them")


if __name__ == "__main__":
    main()
