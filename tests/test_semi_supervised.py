"""The protocol of the semi-supervised comparison, and the pictures of what its runs log."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import curves
from experiments.semi_supervised import SETTINGS, jobs
from labelfx import config as configs


@pytest.mark.parametrize("name", SETTINGS)
def test_protocol(name):
    data = {"name": name} | ({} if name == "digits" else {"data_dir": "unread"})
    settings = SETTINGS[name]
    every = list(jobs(data, settings, Path("/w"), settings["seeds"]))
    runs = {job.folder: configs.check(job.config) for job in every}
    assert len(runs) == len(every)
    order = list(runs)
    for folder, run in runs.items():
        assert folder.parent.name == f"seed_{run.seed}" and run.seed == run.label_seed == run.data_seed
        assert (run.labels, run.steps, run.batch["labelled"]) == (
            {"name": "per_class", "k": 4, "weak": None, "validation": 0},
            settings["steps"],
            32,
        )
        assert run.batch["unlabelled"] in (0, 64)
        for start in filter(None, (run.backbone, *run.teacher)):  # of the same seed, and there before it is read
            assert order.index(Path(start)) < order.index(folder) and Path(start).parent == folder.parent
        if folder.name.endswith("_control"):
            treated = configs.plain(runs[folder.with_name(folder.name.removesuffix("_control"))])
            control = configs.plain(run)
            weights = [each["method"].pop("mpl_weight") for each in (treated, control)]
            assert weights == [1.0, 0.0]
            assert treated | {"name": ""} == control | {"name": ""}
    names = {folder.name for folder in runs}
    assert len(names) * len(settings["seeds"]) == len(runs)
    assert len([name for name in names if name.endswith("_control")]) == 4
    widths = {folder.name for folder, run in runs.items() if run.model["width"] != 32}
    assert widths == {"supervised_large"}


def write(folder, lines):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def workdir(tmp_path):
    write(tmp_path / "seed_0" / "a", [{"step": 1, "h": 1.0}, {"step": 2, "h": None}, {"step": 3, "h": 3.0}])
    write(tmp_path / "seed_1" / "a", [{"step": 1, "h": 3.0}, {"step": 2, "h": 1.0}, {"step": 3, "h": 5.0, "head": 1}])
    return tmp_path


def test_curves(workdir):
    steps, values = curves.read(workdir, "a", "h")
    np.testing.assert_array_equal(steps, [1, 3])
    np.testing.assert_array_equal(values, [[1.0, 3.0], [3.0, 5.0]])
    for run, metric in (("a", "unknown"), ("b", "h")):
        with pytest.raises(FileNotFoundError, match=f"{metric!r} in .*/{run}/"):
            curves.read(workdir, run, metric)


def test_picture(workdir):
    pytest.importorskip("matplotlib", reason="no matplotlib: pip install 'labelfx[colab]'")
    curves.draw(workdir, ["a"], ["h", "h"], workdir / "curves.svg")
    assert "<svg" in (workdir / "curves.svg").read_text()
