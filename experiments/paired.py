"""Runs on paired seeds to a table, for the comparisons here that are more than `labelfx.benchmark` does."""

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from labelfx import config as configs
from labelfx.reports import sweep
from labelfx.reports.sweep import Job
from labelfx.table import table


def work_off(every: Iterable[Job], workdir: Path, baseline: str = "supervised") -> str:
    """Runs the jobs that have no results yet; writes and returns the table of what is in `workdir`, each row paired
    with the baseline.

    Raises:
      ConfigError: a run in `workdir` has another configuration.
    """
    sweep.work_off(every)
    text = table([workdir], baseline=baseline)
    configs.write_text(workdir / "table.md", text)
    print(text)
    return text


def cell(seeds: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """Accuracies of a row by seed, each {"accuracy": ...}, in %: mean and standard deviation, and in brackets the
    paired difference to those of the baseline, mean and standard error."""
    values = [100 * each["accuracy"] for each in seeds.values()]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    text = f"{statistics.fmean(values):.1f}{spread}"
    differences = [100 * (seeds[s]["accuracy"] - baseline[s]["accuracy"]) for s in seeds.keys() & baseline.keys()]
    if len(differences) < 2 or not any(differences):
        return text
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return f"{text}<br>({statistics.fmean(differences):+.1f} ± {error:.1f})"
