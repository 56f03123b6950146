"""Where a run may live, and what only a path on this machine can be."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx import scores
from labelfx.config import ConfigError

CONFIG = tiny("supervised", model={"name": "mlp", "hidden": (16,), "dtype": "float32"}, evals={"head": {}})
DATA = {"name": "digits", "placement": "host"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    labelfx.train(CONFIG, folder)
    return folder


OWN = {
    "inputs": ("a",),
    "labels": ("b",),
    "task": "class",
    "test": "",
    "test_seed": 0,
    "vocab_size": 0,
    "max_length": 0,
}
REFUSED = {
    "train": lambda run, at: labelfx.train(CONFIG, at),
    "train, a path": lambda run, at: labelfx.train(CONFIG, Path(at)),
    "evaluate": lambda run, at: labelfx.evaluate(at),
    "evaluate to": lambda run, at: labelfx.evaluate(run, out=at),
    "load": lambda run, at: labelfx.load(at),
    "report": lambda run, at: labelfx.report([run, at]),
    "report to": lambda run, at: labelfx.report([run], at + ".html"),
    "table": lambda run, at: labelfx.table([at]),
    "scores": lambda run, at: scores.draw(at),
    "features": lambda run, at: labelfx.features(at, "test", "out.npz"),
    "features of": lambda run, at: labelfx.features(run, at, "out.npz"),
    "features to": lambda run, at: labelfx.features(run, "test", at + ".npz"),
    "predict": lambda run, at: labelfx.predict(at, "images", "out.csv"),
    "fit": lambda run, at: labelfx.fit("digits", at),
    "fit of": lambda run, at: labelfx.fit(at, "out"),
    "predict of": lambda run, at: labelfx.predict(run, at, "out.csv"),
    "predict to": lambda run, at: labelfx.predict(run, "images", at + ".csv"),
    "suggest": lambda run, at: labelfx.suggest("train", at, 1, "out"),
    "suggest of": lambda run, at: labelfx.suggest(at, run, 1, "out"),
    "suggest to": lambda run, at: labelfx.suggest("train", run, 1, at),
    "suggest after": lambda run, at: labelfx.suggest("train", run, 1, "out", labels=at + ".csv"),
    "export": lambda run, at: labelfx.export(at, "out"),
    "export to": lambda run, at: labelfx.export(run, at),
    "benchmark": lambda run, at: labelfx.benchmark(DATA, ["fixmatch"], [1], [0], at),
    "mine": lambda run, at: mine(queries=at),
    "mine to": lambda run, at: mine(out=at),
    "teacher": lambda run, at: labelfx.train(tiny("distillation", teacher=at), "run"),
    "data folder": lambda run, at: on(name=f"folder:{at}", image_size=8, channels=1),
    "data npz": lambda run, at: on(name=f"npz:{at}"),
    "data mnist": lambda run, at: on(name="mnist", data_dir=at),
    "data fashion_mnist": lambda run, at: on(name="fashion_mnist", data_dir=at),
    "data cifar10": lambda run, at: on(name="cifar10", data_dir=at),
    "data csv": lambda run, at: on(name=f"csv:{at}", **OWN),
    "data jsonl": lambda run, at: on(name=f"jsonl:{at}", **OWN),
    "data parquet": lambda run, at: on(name=f"parquet:{at}", **OWN),
    "data multilabel": lambda run, at: on(name="multilabel:yeast", data_dir=at, seed=0),
    "data musk1": lambda run, at: on(name="musk1", data_dir=at, folds=2, fold=0, seed=0),
    "data planetoid": lambda run, at: on(name="planetoid:cora", data_dir=at),
    "data banking77": lambda run, at: on(name="banking77", data_dir=at, vocab_size=300, max_length=8),
    "data clinc150": lambda run, at: on(
        name="clinc150", data_dir=at, variant="full", split="val", out_of_scope=True, vocab_size=300, max_length=8
    ),
    "data goemotions": lambda run, at: on(name="goemotions", data_dir=at, split="dev", vocab_size=300, max_length=8),
    "data wrench": lambda run, at: on(name="wrench:sms", data_dir=at, split="test", vocab_size=300, max_length=8),
    "data tfds": lambda run, at: on(name="tfds:a", data_dir=at, train_split="a", test_split="b", image_size=0),
    "data sts": lambda run, at: on(name="sts", data_dir=at, vocab_size=100, max_length=8),
    "data sick": lambda run, at: on(name="sick", data_dir=at, vocab_size=100, max_length=8, split="dev"),
    "data cranfield": lambda run, at: on(name="cranfield", data_dir=at, vocab_size=9, max_length=8, rows="documents"),
}


RUNS = {"train", "train, a path", "evaluate", "evaluate to", "load", "report", "table", "scores", "features", "export"}
RUNS |= {"teacher", "suggest", "predict"}  # may be in a bucket


def on(**data):
    return labelfx.train(CONFIG | {"data": data}, "run")


def mine(**changes):
    np.save("x.npy", np.eye(4, dtype=np.float32))
    np.save("p.npy", np.arange(4))
    files = {"queries": "x.npy", "index": "x.npy", "positives": "p.npy", "out": "out.npz"} | changes
    return labelfx.mine(**files, similarity="inner", candidates=2, count=1, rule="top", seed=0)


@pytest.mark.parametrize(
    ("what", "at"),
    [(what, f"{scheme}://bucket/run") for what in REFUSED for scheme in ("s3", "gs")[: 1 + (what not in RUNS)]],
)
def test_an_address_is_refused_before_anything_is_made_of_it(what, at, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"(^|: )(s3|gs):/{1,2}bucket/run(\.\w+)?: an address, where only a path on"):
        REFUSED[what](finished, at)
    assert not {"s3:", "gs:", "out", "out.npz", "report.html"} & set(os.listdir())


def test_a_bucket_takes_packages_and_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"^gs://nowhere: needs gcsfs; pip install 'labelfx\[gcs\]'$"):
        labelfx.train(CONFIG, "gs://nowhere/run")
    with pytest.raises(ConfigError, match=r"^gs://nowhere: must be gs://BUCKET/PATH$"):
        labelfx.train(CONFIG, "gs://nowhere")
    assert os.listdir() == []


@pytest.mark.parametrize("below", ["", "run"])
@pytest.mark.parametrize("command", ["train", "evaluate to", "benchmark"])
def test_a_file_is_no_folder(command, below, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^\S*file\S*: must be a folder; it is a file or lies below one$"):
        REFUSED[command](finished, str(Path("file") / below))
