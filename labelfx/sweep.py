"""Many runs, one after the other: what is done is skipped, what was cut off goes on, and how long it takes is said."""

import collections
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import labelfx
from labelfx import config as configs


class Job(NamedTuple):
    """A run (`config`), or the evals of another run in `pretrained` (`config` has its labels and evals); results go to
    `folder`."""

    folder: Path
    config: dict[str, Any]
    pretrained: Path | None = None


def work_off(every: Iterable[Job]) -> None:
    """Runs the jobs that have no results yet, in their order, with a line on each.

    Raises:
      ConfigError: a job's folder has a run of another configuration.
    """
    every = list(every)
    missing = [job for job in every if not _is_done(job)]
    print(f"{len(every)} runs, {len(every) - len(missing)} of them done before", file=sys.stderr)
    begin = time.perf_counter()
    taken: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for number, job in enumerate(missing):
        left = f"ETA {clock(_left(taken, missing[number:]))}" if number else ""
        print(f"run {number + 1} of {len(missing)}: {job.folder}  {left}", file=sys.stderr)
        since = time.perf_counter()
        if job.pretrained:
            labelfx.evaluate(job.pretrained, out=job.folder, **job.config)
        else:
            labelfx.train(job.config, job.folder)
        taken[_key(job)].append(time.perf_counter() - since)
    print(f"{len(missing)} runs in {clock(time.perf_counter() - begin)}", file=sys.stderr)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as 30:05:09."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"


def _left(taken: Mapping[tuple[str, str], list[float]], missing: Iterable[Job]) -> float:
    """Seconds that the missing jobs will take: as those of the same name, at the same budget where there are any."""

    def usual(job: Job) -> float:
        key = _key(job)
        alike = [seconds for other, seconds in taken.items() if other[0] == key[0]] or list(taken.values())
        return statistics.fmean(taken.get(key) or sum(alike, []))

    return sum(map(usual, missing))


def _key(job: Job) -> tuple[str, str]:
    return job.folder.name, job.folder.parent.name


def _is_done(job: Job) -> bool:
    done = (job.folder / "results.json").exists()
    if done and not job.pretrained:
        configs.compare(configs.check(job.config), job.folder)  # ConfigError where it was another run
    return done
