"""The comparison's protocol, and a small one run to its end."""

import json
from pathlib import Path

import jax
import pytest

from experiments.compare import PRETRAINING, SEEDS, SETTINGS, compare, jobs
from labelfx import config as configs
from labelfx.config import ConfigError

# Little to compile: every run builds its own programs.
SMALL = {
    "model": {"name": "mlp", "hidden": (4,), "dtype": "float32"},
    "method.augment": {"name": "identity"},
    "optimizer.schedule.warmup_steps": 0,
    "steps": 2,
    "devices": 1,
}
SETTING = {
    "budgets": (2,),
    "pretraining": SMALL | {"method.projector.hidden": (), "batch.unlabelled": 16},
    "training": SMALL | {"batch.labelled": 8},
}


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


@pytest.fixture
def compilation_cache(tmp_path):
    """Both seeds and, where the shapes agree, all methods share their compiled programs."""
    settings = {"jax_compilation_cache_dir": str(tmp_path / "cache"), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_small_comparison(tmp_path, compilation_cache, monkeypatch):
    monkeypatch.setattr("experiments.compare.PRETRAINING", ("hard_negative",))
    workdir, data = tmp_path / "small", {"name": "digits"}
    text = compare(data, SETTING, workdir, seeds=(0, 1))
    assert (workdir / "table.md").read_text() == text
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in text.splitlines() if line.startswith("|")}
    expected = ["raw_pixels", "random_encoder", "hard_negative + finetune, head", "hard_negative, linear_probe"]
    assert list(rows)[2:] == [*expected, "supervised, head"]
    assert "warning" not in text

    pairs = []
    for seed in (0, 1):
        ours, theirs = (
            json.loads((workdir / f"seed_{seed}" / "2_per_class" / name / "results.json").read_text())
            for name in ("hard_negative_probe", "supervised")
        )
        assert ours["labels"] == theirs["labels"] and ours["labels"]["n"] == 20
        assert ours["seeds"] == theirs["seeds"] == {"seed": seed, "label_seed": seed, "data_seed": seed}
        pairs.append(ours["metrics"]["linear_probe"]["accuracy"] - theirs["metrics"]["head"]["accuracy"])
    difference, error = 50 * sum(pairs), 50 * abs(pairs[0] - pairs[1])
    cell = rows["hard_negative, linear_probe"][3].strip()
    assert cell.removesuffix(" (noise)") == f"{difference:+.2f} +- {error:.2f}"

    def written():
        return {path: path.stat().st_mtime_ns for path in workdir.rglob("results.json")}

    before = written()
    probe = workdir / "seed_1" / "2_per_class" / "hard_negative_probe" / "results.json"
    probe.unlink()
    assert compare(data, SETTING, workdir, seeds=(0, 1)) == text
    assert {path for path, when in written().items() if before[path] != when} == {probe}
    with pytest.raises(ConfigError, match=r"holds a run of another configuration: config.steps \(2 there, 3 now\)"):
        compare(data, SETTING | {"pretraining": SETTING["pretraining"] | {"steps": 3}}, workdir, seeds=(0, 1))
