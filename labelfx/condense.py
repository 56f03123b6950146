"""A small data set out of a large one and finished runs, and the command:

    python -m labelfx.condense HOW --runs=DIR,DIR... --out=FILE.npz --set per_class=10 [KEY=VALUE ...]

HOW is a function of `labelfx.condensed` and its settings are the keys that `python -m labelfx.list HOW` shows. The
source `npz:FILE` reads the file, with the soft labels as the column `target` of the training rows and the first run's
test rows; `configs/condensed.py` is a recipe of a student.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labelfx import config as configs
from labelfx.condensed import Condensed
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.derived import Finished
from labelfx.loop.run import keep_compiled_programs


def condense(
    how: str,
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    seed: int = 0,
    dataset: Dataset | None = None,
    **settings: Any,
) -> Condensed:
    """The command as a function.

    Args:
      runs: workdirs of finished runs, in the order that the function takes them.
      seed: of what the function draws.
      dataset: of runs whose data were arrays in memory.
      settings: the function's keyword-only parameters.

    Returns:
      What it writes to `out`.

    Raises:
      FileNotFoundError, ConfigError: as for `labelfx.load`; there is no such function or setting; the runs do not suit
        it; `out` is no .npz. One line.
    """
    out = configs.local(out)
    if out.suffix != ".npz":
        raise ConfigError(f"--out={out}: must end in .npz")
    part = configs.check_part(configs.CONDENSED, {"name": how, **settings}, "condense")
    parents = tuple(Finished(configs.place(run), dataset) for run in runs)
    if not parents:
        raise ConfigError("--runs: none given; name the workdirs of finished runs")
    keep_compiled_programs()
    with configs.replacing(out) as file:  # opened now: a place that cannot be written to costs no time
        found: Condensed = configs.build(configs.CONDENSED, part, runs=parents, rng=np.random.default_rng(seed))
        data = parents[0].data[0]
        arrays: dict[str, Any] = {"class_names": np.array(data.class_names), **found.stored}
        arrays |= {"train_images": found.images, "train_labels": found.labels, "train_target": found.target}
        if data.test is not None:
            every = np.arange(len(data.test.labels))
            arrays |= {"test_images": data.test.inputs[every], "test_labels": data.test.labels}
        np.savez(file, **arrays)
    print(f"{out}: {len(found.images):,} images of {len(data.class_names)} classes")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m labelfx.condense", description="A small data set with soft labels."
    )
    parser.add_argument("how", metavar="HOW", help=f"one of {', '.join(configs.names(configs.CONDENSED))}")
    parser.add_argument("--runs", metavar="DIR,DIR...", required=True, help="the workdirs of finished runs")
    parser.add_argument("--out", metavar="FILE", required=True, help="the .npz file to write")
    parser.add_argument("--seed", type=int, default=0, help="of what HOW draws; 0 unless given")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", nargs="+", default=[], action="extend", help="settings of HOW, see labelfx.list"
    )
    flags = parser.parse_args()
    try:
        settings = configs.settings(flags.set, flags.how, ("how", "runs", "out", "seed", "dataset"))
        condense(flags.how, flags.runs.split(","), flags.out, seed=flags.seed, **settings)
    except (OSError, ValueError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
