"""The comparison's protocol."""

from pathlib import Path

import pytest

from experiments.compare import PRETRAINING, SEEDS, SETTINGS, jobs
from labelfx import config as configs


@pytest.mark.parametrize("name", SETTINGS)
def test_protocol(name):
    data = {"name": name} | ({} if name == "digits" else {"data_dir": "unread"})
    every = list(jobs(data, SETTINGS[name], Path("/w"), SEEDS))
    runs = [(job.folder, configs.check(job.config)) for job in every if not job.pretrained]
    probes = [job for job in every if job.pretrained]
    assert {run.seed for _, run in runs} == set(range(5))
    assert all(run.seed == run.label_seed == run.data_seed for _, run in runs)
    assert len({folder for folder, _ in runs}) == len(runs)
    pretraining = {folder: run for folder, run in runs if run.name in PRETRAINING}
    assert len(pretraining) == 5 * len(PRETRAINING)
    assert len(probes) == len(pretraining) * len(SETTINGS[name]["budgets"])
    assert {probe.pretrained for probe in probes} == set(pretraining)
    training = {(run.seed, run.labels["k"]): run for _, run in runs if run.method["name"] == "supervised"}
    finetuning = [run for _, run in runs if run.method["name"] == "finetune"]
    assert len(finetuning) == len(probes) and len(training) == 5 * len(SETTINGS[name]["budgets"])
    for run in finetuning:
        baseline, start = training[run.seed, run.labels["k"]], pretraining[Path(run.backbone)]
        assert start.seed == run.seed and start.model == run.model
        assert run.method["augment"] == baseline.method["augment"]
        for field in ("steps", "batch", "optimizer", "model", "labels"):
            assert getattr(run, field) == getattr(baseline, field)
    assert all({"raw_pixels", "random_encoder"} <= run.evals.keys() for run in training.values())
