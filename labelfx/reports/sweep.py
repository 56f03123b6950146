"""Many runs, one after the other: what is done is skipped, what was cut off goes on, and how long it takes is said."""

import collections
import contextlib
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.hardware.blank import Blanks, blank_loop
from labelfx.loop import results
from labelfx.loop.mesh import make_mesh

# What the steps of two runs may differ in and yet be the same program.
NO_MATTER = ("name", "seed", "label_seed", "data_seed", "labels", "backbone")


class Job(NamedTuple):
    """A run (`config`), or the evals of another run in `pretrained` (`config` has its labels and evals); results go to
    `folder`."""

    folder: Path
    config: dict[str, Any]
    pretrained: Path | None = None


def check(every: Iterable[Job], dataset: Dataset) -> None:
    """Builds each run that has no results yet as far as it goes without data and without training, once for all that
    differ in seeds, rows and the strength of what is said of them alone: a second or a few each.

    Raises:
      ConfigError: one cannot run; the line begins with its name.
    """
    configured: dict[str, configs.Run] = {}
    distinct: dict[str, configs.Run] = {}
    for job in (job for job in every if not job.pretrained):
        with _named(job.config["name"]):
            config = configured[str(job.folder)] = configs.check(job.config)
        if _has_results(job.folder):
            continue
        taught = [configs.plain(configured[each].model) for each in config.teacher if each in configured]
        kept = {field: value for field, value in configs.plain(config).items() if field not in NO_MATTER}
        said = (config.labels["weak"] or {}).get("name")  # by which there are other columns
        distinct.setdefault(json.dumps(kept | {"teacher": taught, "said": said}, sort_keys=True), config)
    if distinct:
        print(f"checking that {len(distinct)} configurations can run", file=sys.stderr)
    images = dataset.train.inputs
    blank = dataset._replace(train=dataset.train._replace(inputs=Blanks(images.shape, images.dtype)))
    for config in distinct.values():
        with _named(config.name), tempfile.TemporaryDirectory() as folder:
            teachers = []
            for index, each in enumerate(config.teacher):
                if each in configured:  # it is not there yet; its configuration is what the step's shapes take
                    place = Path(folder) / str(index)
                    place.mkdir()
                    configs.write_text(place / "config.json", json.dumps(configs.plain(configured[each])))
                teachers.append(str(place) if each in configured else each)
            config = dataclasses.replace(config, teacher=tuple(teachers))
            loop = blank_loop(config, blank, list(make_mesh(config.devices, config.fsdp).devices.flat))
            for index in range(len(configs.phases(config))):
                state = loop.trace(index).out_info[0]
            last = loop.build(index)
            variables = jax.eval_shape(last.method.variables, state)
            for name in config.evals:
                if part := results.lacks(name, variables):
                    raise ConfigError(f"config.evals.{name}: {last.config['method']['name']} trains no {part}")


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Puts the name of a run before what is wrong with it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


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


def _has_results(folder: Path) -> bool:
    """Whether every eval has; one that failed is tried again."""
    path = folder / "results.json"
    return path.exists() and "failed" not in configs.read_json(path)


def _is_done(job: Job) -> bool:
    done = _has_results(job.folder)
    if done and not job.pretrained:
        configs.compare(configs.check(job.config), job.folder)  # ConfigError where it was another run
    return done
