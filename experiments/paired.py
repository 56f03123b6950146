"""Runs on paired seeds to a table, for the comparisons here that are more than `labelfx.benchmark` does."""

from collections.abc import Iterable
from pathlib import Path

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
